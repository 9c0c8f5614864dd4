// A program that has an `mg_header` of its own, as a structure or (OWN_TYPEDEF) as another name; the
// library's header comes before it or (OWN_FIRST) behind it.
#ifndef OWN_FIRST
#include "mongoose.h"
#endif

#ifdef OWN_TYPEDEF
struct field {
  int id;
};
typedef field mg_header;
#else
struct mg_header {
  int id;
};
#endif

#ifdef OWN_FIRST
#include "mongoose.h"
#endif

int main() {
  mg_connection conn = mg_connection();
  mg_connection::mg_header theirs = {"name", "value"};
  const mg_header own = {7};

  conn.http_headers[own.id] = theirs;
  const struct mg_connection::mg_header *same = &conn.http_headers[7];
  return same->name == theirs.name && own.id == 7 ? 0 : 1;
}
