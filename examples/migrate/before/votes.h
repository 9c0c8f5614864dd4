/* The votes of a poll, by the name of what is voted for. */

struct votes {
  char name[64];
  int count;
};

/* One more vote for a name, or none where there is no room. Returns how many it has now, or 0. */
int votes_add(const char *name);

/* What has votes; NULL behind the last. */
const struct votes *votes_at(int index);
