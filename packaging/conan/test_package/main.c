#include <mongoose.h>
#include <string.h>

int main(void) {
  char digits[33];

  return strcmp(mg_md5(digits, "a", "bc", NULL), "900150983cd24fb0d6963f7d28e17f72") != 0;
}
