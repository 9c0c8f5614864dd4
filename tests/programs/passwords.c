/* Changes a password file: passwords FILE PREFIX COUNT adds the users PREFIX0, PREFIX1 and so on;
 * with a COUNT of 0 it changes the password of PREFIX for ever, and prints a line each time. */
#include "check.h"
#include "mongoose.h"

int main(int argc, char *argv[]) {
  int i, count = argc > 3 ? atoi(argv[3]) : -1;
  char text[64];

  CHECK(count >= 0);
  if (count == 0) {
    for (i = 0; failures == 0; i++) {
      snprintf(text, sizeof(text), "password%d", i);
      CHECK_INT(mg_modify_passwords_file(argv[1], "a.com", argv[2], text), 1);
      SAY("changed %d", i);
    }
  }
  if (count > 0) {
    SAY("ready");
    CHECK(getchar() == '\n');
  }
  for (i = 0; i < count; i++) {
    snprintf(text, sizeof(text), "%s%d", argv[2], i);
    CHECK_INT(mg_modify_passwords_file(argv[1], "a.com", text, "secret"), 1);
  }
  return VERDICT;
}
