#include "votes.h"

#include <stdio.h>
#include <string.h>

static struct votes all[100];
static int used;

int votes_add(const char *name) {
  int i = 0;

#ifdef NO_EMPTY_VOTES
  if (name[0] == '\0') return 0;
#endif
  while (i < used && strcmp(all[i].name, name) != 0) i++;
  if (i == (int) (sizeof(all) / sizeof(all[0]))) return 0;
  if (i == used) {
    snprintf(all[i].name, sizeof(all[i].name), "%s", name);
    used++;
  }
  return ++all[i].count;
}

const struct votes *votes_at(int index) {
  return index < used ? &all[index] : NULL;
}
