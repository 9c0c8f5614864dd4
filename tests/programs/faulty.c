/* Faults on purpose, by which a test learns whether the sanitizers see any: `faulty KIND`. */

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mongoose.h"

/* Not in the header; programs of old declare it. */
int mg_url_decode(const char *src, int src_len, char *dst, int dst_len, int is_form_url_encoded);

/* Kept from the compiler, which would see the fault. */
static char *volatile memory;

int main(int argc, char **argv) {
  const char *kind = argc > 1 ? argv[1] : "";
  int sum = INT_MAX - 1;
  char text[128];

  memory = (char *) malloc(8);
  if (memory == NULL) return 1;
  memset(memory, '%', 8);
  if (strcmp(kind, "freed") == 0) {
    free(memory);
    sum = memory[1];
  } else if (strcmp(kind, "sum") == 0) {
    sum += argc;
  } else if (strcmp(kind, "leak") == 0) {
    memory = NULL;
  } else if (strcmp(kind, "library") == 0) {
    /* Of the text there are eight bytes. */
    sum = mg_url_decode(memory, 64, text, (int) sizeof text, 0);
    free(memory);
  } else {
    free(memory);
  }
  printf("SURVIVED %d\n", sum);
  return 0;
}
