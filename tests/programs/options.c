/* The options of a server that does not serve: names, defaults, sentences, and that a refused
 * value leaves the old one. */
#include <signal.h>

#include "check.h"
#include "mongoose.h"

/* Names and defaults that programs may rely on. */
static const char *const known[][2] = {
    {"access_control_list", ""},
    {"access_log_file", ""},
    {"auth_domain", "mydomain.com"},
    {"cgi_environment", ""},
    {"cgi_interpreter", ""},
    {"cgi_pattern", "**.cgi$|**.pl$|**.php$"},
    {"dav_auth_file", ""},
    {"dav_depth_infinity", "no"},
    {"default_charset", ""},
    {"document_root", ""},
    {"enable_basic_auth", "no"},
    {"enable_directory_listing", "yes"},
    {"enable_uploads", "no"},
    {"error_log_file", ""},
    {"extra_mime_types", ""},
    {"follow_symlinks", "yes"},
    {"global_auth_file", ""},
    {"hide_files_patterns", ""},
    {"idle_timeout_ms", "30000"},
    {"index_files", "index.html,index.htm,index.cgi,index.php,index.lp"},
    {"listening_port", ""},
    {"run_as_user", ""},
    {"ssl_ca_certificate", ""},
    {"ssl_certificate", ""},
    {"ssl_certificates", ""},
    {"ssl_protocols", "1.2,1.3"},
    {"ssl_verify_client", ""},
    {"trusted_proxies", ""},
    {"uploads_by_anybody", "no"},
    {"url_rewrites", ""},
    {"request_timeout_ms", "30000"},
    {"max_request_header_bytes", "16384"},
    {"max_request_body_bytes", "268435456"},
    {"max_send_queue_bytes", "268435456"},
    {"max_upload_bytes", "0"},
    {"max_websocket_message_bytes", "67108864"},
    {"max_buffered_bytes", "1073741824"},
    {"max_connections", "0"},
    {"deferred_answers", "get"},
    {"iterate_content", "none"},
    {"iterate_over", "websockets"},
    {"iterate_timeout_ms", "10000"},
    {"ssi_pattern", ""},
    {"websocket_delivery", "messages"},
    {"websocket_ping_interval_ms", "5000"},
};

static const char *const accepted[][2] = {
    {"access_control_list", "+1.2.3.4"},
    {"access_control_list", "-0.0.0.0/0,+192.168/16,-10/8,+2001:db8::/32,-::1"},
    {"access_log_file", "/no/such/folder/log"},
    {"auth_domain", "example.com"},
    {"cgi_environment", "A=b,C=d"},
    {"default_charset", "iso-8859-1"},
    {"document_root", "/no/such/folder"},
    {"enable_basic_auth", "tls"},
    {"enable_basic_auth", "Always"},
    {"enable_basic_auth", "no"},
    {"enable_directory_listing", "no"},
    {"enable_directory_listing", "anything"},
    {"enable_uploads", "Yes"},
    {"uploads_by_anybody", "yes"},
    {"error_log_file", "relative/log"},
    {"extra_mime_types", ".a=b/c,.d=e/f"},
    {"follow_symlinks", "no"},
    {"follow_symlinks", "same_owner"},
    {"idle_timeout_ms", "0"},
    {"idle_timeout_ms", "1"},
    {"idle_timeout_ms", "86400000"},
    {"max_request_body_bytes", "2147483647"},
    {"max_websocket_message_bytes", "2147483647"},
    {"max_send_queue_bytes", "1"},
    {"max_upload_bytes", "1099511627776"},
    {"deferred_answers", "all"},
    {"iterate_content", "last"},
    {"iterate_over", "all"},
    {"websocket_delivery", "frames"},
    {"trusted_proxies", "10/8, 2001:db8::/32,unix"},
    {"url_rewrites", "/a=/b,**.c$=/d"},
};

static const char *const refused[][2] = {
    {"access_control_list", "1.2.3.4"},
    {"access_control_list", "+"},
    {"access_control_list", "x"},
    {"access_control_list", "+1.2.3.4.5"},
    {"access_control_list", "+300.2.3.4"},
    {"access_control_list", "+1.2.3.4/33"},
    {"access_control_list", "+1.2.3.4/"},
    {"access_control_list", "+1.2.3.4/-1"},
    {"access_control_list", "+1.2.3.4/x"},
    {"access_control_list", "++1.2.3.4"},
    {"access_control_list", "+2001:db8::/129"},
    {"access_control_list", "+:::"},
    {"access_control_list", "+1.2.3.4,nonsense"},
    {"default_charset", "utf-8; x=y"},
    {"follow_symlinks", "never"},
    {"idle_timeout_ms", "-1"},
    {"idle_timeout_ms", "soon"},
    {"idle_timeout_ms", "5s"},
    {"idle_timeout_ms", "1e3"},
    {"idle_timeout_ms", "99999999999999999999999"},
    {"request_timeout_ms", "x"},
    {"max_request_header_bytes", "x"},
    {"max_request_body_bytes", "2147483648"},
    {"max_websocket_message_bytes", "2147483648"},
    {"max_upload_bytes", "1G"},
    {"max_connections", "-5"},
    {"deferred_answers", "post"},
    {"enable_basic_auth", "yes"},
    {"iterate_over", "some"},
    {"iterate_timeout_ms", "never"},
    {"websocket_delivery", "bytes"},
    {"listening_port", "http"},
    {"listening_port", "65536"},
    {"listening_port", "-1"},
    {"listening_port", "127.0.0.1:"},
    {"listening_port", "[::1:80"},
    {"listening_port", "1.2.3.4.5:80"},
    {"trusted_proxies", "+10/8"},
    {"trusted_proxies", "10/8,"},
    {"trusted_proxies", "localhost"},
    {"listening_port", "127.0.0.1:0,"},
    {"listening_port", "127.0.0.1:0,,0"},
    {"listening_port", "127.0.0.1:0r"},
    {"listening_port", "80,81,80"},
    {"listening_port", "unix:"},
    {"listening_port", "unix:@"},
    {"listening_port", "unix:run.sock:0999"},
    {"listening_port", "unix:run.sock:4755"},
    {"run_as_user", "no-such-user-here"},
    {"ssl_ca_certificate", "/no/such/file"},
    {"ssl_certificate", "/no/such/file"},
    {"ssl_certificates", "example.org=/no/such/file"},
    {"ssl_certificates", "/no/such/file"},
    {"ssl_protocols", "1.1"},
    {"ssl_verify_client", "maybe"},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

int main(void) {
  struct mg_server *server = mg_create_server(NULL), *other = mg_create_server(NULL);
  const char **names = mg_get_valid_option_names();
  struct sigaction action;
  char before[256];
  const char *old, *sentence;
  size_t i, n;

  CHECK(names != NULL);
  for (i = 0; i < COUNT(known); i++) {
    for (n = 0; names[n] != NULL && strcmp(names[n], known[i][0]) != 0; n += 2) {}
    CHECK_STR(names[n], known[i][0]);
    if (names[n] != NULL) CHECK_STR(names[n + 1] ? names[n + 1] : "", known[i][1]);
    CHECK_STR(mg_get_option(server, known[i][0]), known[i][1]);
  }
  for (n = 0; names[n] != NULL; n += 2) {
    old = names[n + 1] ? names[n + 1] : "";
    CHECK_STR(mg_get_option(server, names[n]), old);
  }

  for (i = 0; i < COUNT(accepted); i++) {
    sentence = mg_set_option(server, accepted[i][0], accepted[i][1]);
    if (sentence != NULL) SAY("%s=%s: %s", accepted[i][0], accepted[i][1], sentence);
    CHECK(sentence == NULL);
    CHECK_STR(mg_get_option(server, accepted[i][0]), accepted[i][1]);
  }
  for (i = 0; i < COUNT(refused); i++) {
    snprintf(before, sizeof(before), "%s", mg_get_option(server, refused[i][0]));
    sentence = mg_set_option(server, refused[i][0], refused[i][1]);
    if (sentence == NULL) SAY("%s=%s was accepted", refused[i][0], refused[i][1]);
    CHECK(sentence != NULL && strlen(sentence) > 5);
    CHECK_STR(mg_get_option(server, refused[i][0]), before);
  }
  CHECK_STR(mg_set_option(server, "no_such_option", "x"), "No such option");
  CHECK_STR(mg_set_option(server, "Document_Root", "x"), "No such option");
  CHECK(mg_get_option(server, "no_such_option") == NULL);

  /* NULL and empty values give the default back. */
  for (i = 0; i < COUNT(accepted); i++) {
    for (n = 0; strcmp(known[n][0], accepted[i][0]) != 0; n++) {}
    CHECK(mg_set_option(server, accepted[i][0], i % 2 ? "" : NULL) == NULL);
    CHECK_STR(mg_get_option(server, accepted[i][0]), known[n][1]);
  }

  /* A value belongs to its server, and is a copy of what was given. */
  strcpy(before, "mine");
  CHECK(mg_set_option(server, "auth_domain", before) == NULL);
  strcpy(before, "else");
  CHECK_STR(mg_get_option(server, "auth_domain"), "mine");
  CHECK_STR(mg_get_option(other, "auth_domain"), "mydomain.com");
  /* What was got once stays readable after a change and after the server. */
  old = mg_get_option(server, "auth_domain");
  CHECK(mg_set_option(server, "auth_domain", "theirs") == NULL);
  mg_destroy_server(&server);
  CHECK_STR(old, "mine");

  memset(&action, 0, sizeof(action));
  CHECK(sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_IGN);
  CHECK(sigaction(SIGCHLD, NULL, &action) == 0 && action.sa_handler == SIG_DFL);
  mg_destroy_server(&other);
  return VERDICT;
}
