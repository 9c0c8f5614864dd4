/* Calls that compilers warn of, one by one: CASE says which. Compiled only, never run. */
#include "mongoose.h"

int call(struct mg_connection *conn, const char *text, char digest[33]);

int call(struct mg_connection *conn, const char *text, char digest[33]) {
#if CASE == 0
  mg_printf(conn, "%d %s", 1, text);
  mg_printf_data(conn, "%d %s", 1, text);
  mg_md5(digest, text, (char *) 0);
#elif CASE == 1
  mg_printf(conn, "%d", text);
#elif CASE == 2
  mg_printf_data(conn, "%s %s", text);
#elif CASE == 3
  mg_printf(conn, text);
#elif CASE == 4
  mg_printf_data(conn, text);
#elif CASE == 5
  mg_md5(digest, text);
#endif
  return conn != NULL && text != NULL && digest != NULL;
}
