/* The helper functions, each with its table of cases. The argument is a folder to write to. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>

#include "check.h"
#include "mongoose.h"

int mg_url_decode(const char *src, int src_len, char *dst, int dst_len, int is_form_url_encoded);

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void parse_header(void) {
  static const char text[] =
      "xx=1 kl yy, ert=234 kl=123, ii=\"12\\\"34\" zz='aa bb', gf=\"xx d=1234";
  static const struct {
    const char *header, *name, *value;
  } cases[] = {
      {text, "ert", "234"},
      {text, "kl", "123"},
      {text, "ii", "12\"34"},
      {text, "zz", "aa bb"},
      {text, "xx", "1"},
      {text, "d", "1234"},
      {text, "gf", ""},
      {text, "yy", ""},
      {text, "r", ""},
      {text, "", ""},
      {"a=1; b=2; c=3", "a", "1"},
      {"a=1; b=2; c=3", "b", "2"},
      {"a=1; b=2; c=3", "c", "3"},
      {"a=1,b=2", "b", "2"},
      {"a=1;b=2", "b", "2"},
      {"session=x=y==; other=z", "session", "x=y=="},
      {"bb=1 b=2", "b", "2"},
      {"a=", "a", ""},
      {"a", "a", ""},
      {"", "a", ""},
      {"a=\"\"", "a", ""},
      {"a='it\\'s'", "a", "it's"},
      {"username=\"joe\", realm=\"my domain\", nc=00000001", "realm", "my domain"},
      {"username=\"joe\", realm=\"my domain\", nc=00000001", "nc", "00000001"},
  };
  char buf[20];
  size_t i;
  for (i = 0; i < COUNT(cases); i++) {
    int length;
    memset(buf, 'x', sizeof(buf));
    length = mg_parse_header(cases[i].header, cases[i].name, buf, sizeof(buf));
    if (length != (int) strlen(cases[i].value) || strcmp(buf, cases[i].value) != 0) {
      failures++;
      SAY("FAILED %s in %s: %d \"%.20s\"", cases[i].name, cases[i].header, length, buf);
    }
  }
  /* A value that does not fit with its NUL. */
  CHECK_INT(mg_parse_header("ert=234", "ert", buf, 4), 3);
  CHECK_STR(buf, "234");
  CHECK_INT(mg_parse_header("ert=234", "ert", buf, 3), 0);
  CHECK_STR(buf, "");
  buf[0] = 'x';
  CHECK_INT(mg_parse_header("ert=234", "ert", buf, 0), 0);
  CHECK_INT(buf[0], 'x');
}

static void get_header(void) {
  struct mg_connection conn;
  memset(&conn, 0, sizeof(conn));
  conn.num_headers = 3;
  conn.http_headers[0].name = "Host";
  conn.http_headers[0].value = "first";
  conn.http_headers[1].name = "X-Empty";
  conn.http_headers[1].value = "";
  conn.http_headers[2].name = "host";
  conn.http_headers[2].value = "second";
  CHECK_STR(mg_get_header(&conn, "Host"), "first");
  CHECK_STR(mg_get_header(&conn, "hOST"), "first");
  CHECK_STR(mg_get_header(&conn, "x-empty"), "");
  CHECK(mg_get_header(&conn, "Hos") == NULL);
  CHECK(mg_get_header(&conn, "") == NULL);
}

static void get_var(void) {
  static const struct {
    const char *query, *content, *name, *value;
    int length;
  } cases[] = {
      {"a=1&&b=2&d&=&c=3%20&e=", "", "a", "1", 1},
      {"a=1&&b=2&d&=&c=3%20&e=", "", "b", "2", 1},
      {"a=1&&b=2&d&=&c=3%20&e=", "", "c", "3 ", 2},
      {"a=1&&b=2&d&=&c=3%20&e=", "", "d", "", -1},
      {"a=1&&b=2&d&=&c=3%20&e=", "", "e", "", 0},
      {"a=1&&b=2&d&=&c=3%20&e=", "", "f", "", -1},
      {"a=1", "a=2&b=3", "a", "1", 1},
      {"a=1", "a=2&b=3", "b", "3", 1},
      {NULL, "a=2&b=3", "a", "2", 1},
      {NULL, "a=2&b=3", "A", "2", 1},
      {NULL, "", "a", "", -1},
      {"ab=1&b=2", "", "b", "2", 1},
      {"a=1+2%2B3", "", "a", "1 2+3", 5},
      {"a=%&b=%4&c=%zz", "", "a", "%", 1},
      {"a=%&b=%4&c=%zz", "", "b", "%4", 2},
      {"a=%&b=%4&c=%zz", "", "c", "%zz", 3},
      {"a=b=c", "", "a", "b=c", 3},
      {"a=1&a=2", "", "a", "1", 1},
      {"", "x=%e2%82%ac", "x", "\xe2\x82\xac", 3},
  };
  struct mg_connection conn;
  char buf[16];
  size_t i;
  for (i = 0; i < COUNT(cases); i++) {
    int length;
    char content[64];
    strcpy(content, cases[i].content);
    memset(&conn, 0, sizeof(conn));
    conn.query_string = cases[i].query;
    conn.content = content;
    conn.content_len = (int) strlen(content);
    memset(buf, 'x', sizeof(buf));
    length = mg_get_var(&conn, cases[i].name, buf, sizeof(buf));
    if (length != cases[i].length || strcmp(buf, cases[i].value) != 0) {
      failures++;
      SAY("FAILED %s in %s | %s: %d \"%.16s\"", cases[i].name, cases[i].query, content, length,
          buf);
    }
  }
  conn.query_string = "a=hello";
  CHECK_INT(mg_get_var(&conn, "a", buf, 6), 5);
  CHECK_STR(buf, "hello");
  CHECK_INT(mg_get_var(&conn, "a", buf, 5), -2);
  CHECK_STR(buf, "hell");
  CHECK_INT(mg_get_var(&conn, "a", buf, 1), -2);
  CHECK_STR(buf, "");
  CHECK_INT(mg_get_var(&conn, "a", buf, 0), -2);
  CHECK_INT(mg_get_var(&conn, "a", NULL, 5), -2);
}

static void url_decode(void) {
  static const struct {
    const char *source;
    int room, form, length;
    const char *decoded;
  } cases[] = {
      {"foo", 4, 0, 3, "foo"},       {"foo", 3, 0, -1, NULL}, {"%66oo", 4, 0, 3, "foo"},
      {"%6", 4, 0, 2, "%6"},         {"%", 4, 0, 1, "%"},     {"%zz", 4, 0, 3, "%zz"},
      {"a+b", 4, 0, 3, "a+b"},       {"a+b", 4, 1, 3, "a b"}, {"", 1, 0, 0, ""},
      {"%C3%a9", 3, 0, 2, "\xc3\xa9"}, {"%2b", 4, 1, 1, "+"},
  };
  char buf[8];
  size_t i;
  for (i = 0; i < COUNT(cases); i++) {
    const char *source = cases[i].source;
    int length;
    memset(buf, 'x', sizeof(buf));
    length = mg_url_decode(source, (int) strlen(source), buf, cases[i].room, cases[i].form);
    if (length != cases[i].length || memchr(buf, '\0', (size_t) cases[i].room) == NULL ||
        (cases[i].decoded != NULL && strcmp(buf, cases[i].decoded) != 0) ||
        buf[cases[i].room] != 'x') {
      failures++;
      SAY("FAILED %s into %d: %d", source, cases[i].room, length);
    }
  }
  CHECK_INT(mg_url_decode("abc", 2, buf, sizeof(buf), 0), 2);
  CHECK_STR(buf, "ab");
  CHECK_INT(mg_url_decode("%41%42", 5, buf, sizeof(buf), 0), 3);
  CHECK_STR(buf, "A%4");
}

static void md5(void) {
  char buf[33];
  memset(buf, 'x', sizeof(buf));
  CHECK(mg_md5(buf, NULL) == buf);
  CHECK_STR(buf, "d41d8cd98f00b204e9800998ecf8427e");
  CHECK_STR(mg_md5(buf, "", NULL), "d41d8cd98f00b204e9800998ecf8427e");
  CHECK_STR(mg_md5(buf, "abc", NULL), "900150983cd24fb0d6963f7d28e17f72");
  CHECK_STR(mg_md5(buf, "a", "", "b", "c", NULL), "900150983cd24fb0d6963f7d28e17f72");
  CHECK_STR(mg_md5(buf, "message", " ", "digest", NULL), "f96b697d7cb7938d525a2f31aaf161d0");
  CHECK_STR(mg_md5(buf, "joe", ":", "my", ".", "com", ":", "se", "cr", "et", "!", NULL),
            mg_md5((char[33]){0}, "joe:my.com:secret!", NULL));
}

static void mime_type(void) {
  static const char *const table[][2] = {
      {".html", "text/html"},
      {".htm", "text/html"},
      {".shtm", "text/html"},
      {".shtml", "text/html"},
      {".css", "text/css"},
      {".js", "application/x-javascript"},
      {".ico", "image/x-icon"},
      {".gif", "image/gif"},
      {".jpg", "image/jpeg"},
      {".jpeg", "image/jpeg"},
      {".png", "image/png"},
      {".svg", "image/svg+xml"},
      {".bmp", "image/bmp"},
      {".txt", "text/plain"},
      {".json", "text/json"},
      {".xml", "text/xml"},
      {".xsl", "application/xml"},
      {".xslt", "application/xml"},
      {".pdf", "application/pdf"},
      {".zip", "application/x-zip-compressed"},
      {".gz", "application/x-gunzip"},
      {".tgz", "application/x-tar-gz"},
      {".tar", "application/x-tar"},
      {".mp3", "audio/x-mp3"},
      {".wav", "audio/x-wav"},
      {".mp4", "video/mp4"},
      {".webm", "video/webm"},
      {".ttf", "application/x-font-ttf"},
      {".doc", "application/msword"},
      {".xls", "application/excel"},
      {".exe", "application/octet-stream"},
      {".swf", "application/x-shockwave-flash"},
      {".torrent", "application/x-bittorrent"},
      {".m3u", "audio/x-mpegurl"},
      {".ogg", "application/ogg"},
      {".mpg", "video/mpeg"},
      {".mpeg", "video/mpeg"},
      {".mov", "video/quicktime"},
      {".avi", "video/x-msvideo"},
      {".rtf", "application/rtf"},
      {".rar", "application/x-arj-compressed"},
      {".arj", "application/x-arj-compressed"},
      {".mid", "audio/mid"},
      {".ra", "audio/x-pn-realaudio"},
      {".ram", "audio/x-pn-realaudio"},
      {".asf", "video/x-ms-asf"},
      {".m4v", "video/x-m4v"},
      {".woff", "font/woff"},
      {".woff2", "font/woff2"},
      {".otf", "font/otf"},
      {".eot", "application/vnd.ms-fontobject"},
      {".wasm", "application/wasm"},
      {".mjs", "text/javascript"},
      {".webp", "image/webp"},
      {".avif", "image/avif"},
      {".webmanifest", "application/manifest+json"},
      {".map", "application/json"},
      {".opus", "audio/ogg"},
      {".flac", "audio/flac"},
      {".unknown", "text/plain"},
  };
  char name[64];
  size_t i;
  for (i = 0; i < COUNT(table); i++) {
    snprintf(name, sizeof(name), "dir.d/file%s", table[i][0]);
    CHECK_STR(mg_get_mime_type(name), table[i][1]);
  }
  CHECK_STR(mg_get_mime_type("A.HTML"), "text/html");
  CHECK_STR(mg_get_mime_type("a.tar.GZ"), "application/x-gunzip");
  CHECK_STR(mg_get_mime_type("html"), "text/plain");
  CHECK_STR(mg_get_mime_type(""), "text/plain");
}

static char *content_of(const char *file) {
  static char buf[4096];
  FILE *stream = fopen(file, "rb");
  size_t len = 0;
  if (stream != NULL) {
    len = fread(buf, 1, sizeof(buf) - 1, stream);
    fclose(stream);
  }
  buf[len] = '\0';
  return buf;
}

static void passwords(const char *folder) {
  static const char odd[] = "# a comment\nno colons here\nx:y\njoe:other:00\n\n";
  char file[1024], hash[33], line[128], wanted[512];
  struct stat status;
  FILE *stream;

  snprintf(file, sizeof(file), "%s/passwords", folder);
  CHECK_INT(mg_modify_passwords_file(file, "a.com", "joe", "secret"), 1);
  mg_md5(hash, "joe:a.com:secret", NULL);
  snprintf(line, sizeof(line), "joe:a.com:%s\n", hash);
  CHECK_STR(content_of(file), line);
  CHECK_INT(mg_modify_passwords_file(file, "a.com", "ann", "x"), 1);
  CHECK_INT(mg_modify_passwords_file(file, "a.com", "joe", "new"), 1);
  mg_md5(hash, "joe:a.com:new", NULL);
  snprintf(wanted, sizeof(wanted), "joe:a.com:%s\nann:a.com:%s\n", hash,
           mg_md5((char[33]){0}, "ann:a.com:x", NULL));
  CHECK_STR(content_of(file), wanted);
  CHECK_INT(mg_modify_passwords_file(file, "a.com", "joe", NULL), 1);
  CHECK(strncmp(content_of(file), "ann:a.com:", 10) == 0);
  CHECK_INT(mg_modify_passwords_file(file, "a.com", "ann", NULL), 1);
  CHECK_STR(content_of(file), "");

  /* Lines that are none of its business stay, and so does the mode. */
  stream = fopen(file, "wb");
  fputs(odd, stream);
  fclose(stream);
  chmod(file, 0640);
  CHECK_INT(mg_modify_passwords_file(file, "a.com", "joe", "new"), 1);
  snprintf(wanted, sizeof(wanted), "%sjoe:a.com:%s\n", odd, hash);
  CHECK_STR(content_of(file), wanted);
  CHECK_INT(mg_modify_passwords_file(file, "a.com", "joe", NULL), 1);
  CHECK_STR(content_of(file), odd);
  CHECK(stat(file, &status) == 0 && (status.st_mode & 07777) == 0640);

  /* Names that would break the file. */
  CHECK_INT(mg_modify_passwords_file(file, "a.com", "a:b", "x"), 0);
  CHECK_INT(mg_modify_passwords_file(file, "a:com", "a", "x"), 0);
  CHECK_INT(mg_modify_passwords_file(file, "a.com", "a\nb", "x"), 0);
  CHECK_INT(mg_modify_passwords_file(file, "a\r.com", "a", "x"), 0);
  CHECK_INT(mg_modify_passwords_file(file, "a.com", "", "x"), 0);
  CHECK_INT(mg_modify_passwords_file(file, "", "a", "x"), 0);
  CHECK_STR(content_of(file), odd);
  snprintf(file, sizeof(file), "%s/missing/passwords", folder);
  CHECK_INT(mg_modify_passwords_file(file, "a.com", "joe", "x"), 0);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int threads_seen;

static void *count_thread(void *param) {
  pthread_mutex_lock(&mutex);
  threads_seen += *(int *) param;
  pthread_cond_signal(&changed);
  pthread_mutex_unlock(&mutex);
  return NULL;
}

/* What a thread tells of itself, and when it may end. */
struct told {
  pthread_t self;
  int known, may_end;
};

static void *tell_and_wait(void *param) {
  struct told *told = param;
  pthread_mutex_lock(&mutex);
  told->self = pthread_self();
  told->known = 1;
  pthread_cond_broadcast(&changed);
  while (!told->may_end) pthread_cond_wait(&changed, &mutex);
  pthread_mutex_unlock(&mutex);
  return NULL;
}

static void start_thread(void) {
  int i, step = 2;
  for (i = 0; i < 5; i++) CHECK(mg_start_thread(count_thread, &step) != NULL);
  pthread_mutex_lock(&mutex);
  while (threads_seen < 10) pthread_cond_wait(&changed, &mutex);
  pthread_mutex_unlock(&mutex);
}

/* Programs cast what they got back, and join it when they stop: a thread that runs, and one that
   has ended or is about to. */
static void join_thread(void) {
  static struct told told[2]; /* the last thread may outlive this function */
  void *threads[2];
  int i;
  for (i = 0; i < 2; i++) {
    threads[i] = mg_start_thread(tell_and_wait, &told[i]);
    CHECK(threads[i] != NULL);
    pthread_mutex_lock(&mutex);
    while (!told[i].known) pthread_cond_wait(&changed, &mutex);
    CHECK(pthread_equal(told[i].self, (pthread_t) threads[i]));
    CHECK(!pthread_equal(told[i].self, pthread_self()));
    pthread_mutex_unlock(&mutex);
    CHECK_INT(pthread_kill((pthread_t) threads[i], 0), 0);
  }
  CHECK(threads[0] != threads[1]);
#ifdef __GLIBC__
  for (i = 0; i < 2; i++) CHECK_INT(pthread_join((pthread_t) threads[i], NULL), EINVAL);
#endif
  pthread_mutex_lock(&mutex);
  told[0].may_end = 1;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&mutex);
#ifdef __GLIBC__
  CHECK(pthread_join((pthread_t) threads[0], NULL) != 0);
#endif
  pthread_mutex_lock(&mutex);
  told[1].may_end = 1;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&mutex);
}

struct part {
  const char *name, *file, *data;
  int data_len;
};

static void expect_parts(const char *body, int len, const struct part *parts, int count) {
  char name[20], file[20];
  const char *data;
  int i, n, data_len, at = 0;
  for (i = 0; i < count; i++) {
    memset(name, 'x', sizeof(name));
    memset(file, 'x', sizeof(file));
    data = NULL;
    n = mg_parse_multipart(body + at, len - at, name, sizeof(name), file, sizeof(file), &data,
                           &data_len);
    CHECK(n > 0 && n <= len - at);
    if (n <= 0) return;
    CHECK_STR(name, parts[i].name);
    CHECK_STR(file, parts[i].file);
    CHECK_INT(data_len, parts[i].data_len);
    CHECK(data >= body && data + data_len <= body + len);
    CHECK(data_len == parts[i].data_len && memcmp(data, parts[i].data, (size_t) data_len) == 0);
    at += n;
  }
  n = mg_parse_multipart(body + at, len - at, name, sizeof(name), file, sizeof(file), &data,
                         &data_len);
  CHECK_INT(n, 0);
}

static void multipart(void) {
  static const char body[] =
      "--xYz\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a b.txt\"\r\n"
      "Content-Type: text/plain\r\n\r\nline 1\r\nline 2\r\n--xY\r\n\0\r\n--xYz\r\n"
      "content-disposition: form-data; name=\"empty\"\r\n\r\n\r\n--xYz\r\n"
      "Content-Disposition: form-data; name=last\r\n\r\nend\r\n--xYz--\r\n";
  /* Names as browsers write them, and with the quotes of older clients. */
  static const char names[] =
      "--x\r\nContent-Disposition: form-data; name=\"dir\\\"\r\n\r\n1\r\n"
      "--x\r\nContent-Disposition: form-data; name=\"a\\\"; filename=\"C:\\\"\r\n\r\n2\r\n"
      "--x\r\nContent-Disposition: form-data; name=\"a\\\"b\"; filename=\"\\\"\\\"\"\r\n\r\n3\r\n--x--\r\n";
  static const struct part named[] = {
      {"dir\\", "", "1", 1},
      {"a\\", "C:\\", "2", 1},
      {"a\"b", "\"\"", "3", 1},
  };
  static const struct part parts[] = {
      {"f", "a b.txt", "line 1\r\nline 2\r\n--xY\r\n\0", 23},
      {"empty", "", "", 0},
      {"last", "", "end", 3},
  };
  static const char *const garbage[] = {
      "", "-", "--", "--a", "--a\r\n", "--a\r\n\r\n", "hello", "\r\n\r\n\r\n", "--a\r\nb\r\n\r\nc",
      "--a\r\nContent-Disposition: form-data; name=\"",
  };
  char name[4], file[4];
  const char *data;
  int data_len;
  size_t i;
  expect_parts(body, (int) sizeof(body) - 1, parts, (int) COUNT(parts));
  expect_parts(names, (int) sizeof(names) - 1, named, (int) COUNT(named));
  for (i = 0; i < COUNT(garbage); i++) {
    CHECK_INT(mg_parse_multipart(garbage[i], (int) strlen(garbage[i]), name, sizeof(name), file,
                                 sizeof(file), &data, &data_len), 0);
  }
  /* However it is cut, nothing behind the end is looked at. */
  for (i = 0; i < sizeof(body); i++) {
    char *exact = (char *) malloc(i + 1);
    memcpy(exact, body, i);
    exact = (char *) realloc(exact, i ? i : 1);
    data_len = 0;
    if (mg_parse_multipart(exact, (int) i, name, sizeof(name), file, sizeof(file), &data,
                           &data_len) > 0) {
      CHECK(data_len <= (int) i);
      CHECK(memchr(name, '\0', sizeof(name)) != NULL && memchr(file, '\0', sizeof(file)) != NULL);
    }
    free(exact);
  }
}

int main(int argc, char *argv[]) {
  if (argc != 2) return EXIT_FAILURE;
  parse_header();
  get_header();
  get_var();
  url_decode();
  md5();
  mime_type();
  passwords(argv[1]);
  start_thread();
  join_thread();
  multipart();
  return VERDICT;
}
