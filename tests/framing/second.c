/* The second reader of messages: llhttp, driven over a whole stream at once. It notes what each message
   says and where it ends, for src/second.rs, which has the same structures. */

#include <stdint.h>
#include <string.h>

#include "llhttp.h"

enum { COMPLETE, INCOMPLETE, REFUSED };

struct span {
    uint32_t at, len;
};

struct message {
    struct span method, target;          /* in the stream */
    struct span content, fields;         /* in the buffers of the reader */
    uint32_t end;                        /* the offset behind the message, in the stream */
    uint64_t length;                     /* Content-Length */
    uint8_t outcome, major, minor, has_length, chunked, coded, keep_alive, upgrade;
    uint16_t status;
    uint8_t began, head_complete;
};

struct reader {
    uint8_t *content, *fields;
    uint32_t content_len, content_room, fields_len, fields_room;
};

/* What the callbacks need. */
struct work {
    struct reader *reader;
    struct message *message;
    const char *stream;
    int no_content;
    char last;                           /* what was appended to the fields: 'n'ame or 'v'alue */
};

static void extend(struct span *span, const char *stream, const char *at, size_t len) {
    if (span->len == 0) span->at = (uint32_t) (at - stream);
    span->len += (uint32_t) len;
}

static void append(struct reader *reader, const char *at, size_t len) {
    size_t room = reader->fields_room - reader->fields_len;
    if (len > room) len = room;
    memcpy(reader->fields + reader->fields_len, at, len);
    reader->fields_len += (uint32_t) len;
}

static int on_message_begin(llhttp_t *parser) {
    struct work *work = parser->data;
    work->message->began = 1;
    return 0;
}

static int on_method(llhttp_t *parser, const char *at, size_t len) {
    struct work *work = parser->data;
    extend(&work->message->method, work->stream, at, len);
    return 0;
}

static int on_url(llhttp_t *parser, const char *at, size_t len) {
    struct work *work = parser->data;
    extend(&work->message->target, work->stream, at, len);
    return 0;
}

/* A field is kept as its name, the byte 0, its value and the byte 1. */
static int on_field(llhttp_t *parser, const char *at, size_t len) {
    struct work *work = parser->data;
    if (work->message->head_complete) return 0;
    if (work->last == 'v') append(work->reader, "\1", 1);
    work->last = 'n';
    append(work->reader, at, len);
    return 0;
}

static int on_value(llhttp_t *parser, const char *at, size_t len) {
    struct work *work = parser->data;
    if (work->message->head_complete) return 0;
    if (work->last == 'n') append(work->reader, "", 1);
    work->last = 'v';
    append(work->reader, at, len);
    return 0;
}

static int on_headers_complete(llhttp_t *parser) {
    struct work *work = parser->data;
    struct message *message = work->message;
    if (work->last == 'n') append(work->reader, "", 1);
    if (work->last) append(work->reader, "\1", 1);
    work->last = 0;
    message->head_complete = 1;
    message->major = parser->http_major;
    message->minor = parser->http_minor;
    message->status = parser->status_code;
    message->upgrade = parser->upgrade;
    message->has_length = (parser->flags & F_CONTENT_LENGTH) != 0;
    message->chunked = (parser->flags & F_CHUNKED) != 0;
    message->coded = (parser->flags & F_TRANSFER_ENCODING) != 0;
    message->length = parser->content_length;
    if (parser->type == HTTP_REQUEST) return 0;
    /* RFC 9112, section 6.3: llhttp leaves this to its callers. 101 is no end. */
    return parser->status_code != 101 && (work->no_content || parser->status_code / 100 == 1 ||
           parser->status_code == 204 || parser->status_code == 304);
}

static int on_body(llhttp_t *parser, const char *at, size_t len) {
    struct work *work = parser->data;
    struct reader *reader = work->reader;
    size_t room = reader->content_room - reader->content_len;
    memcpy(reader->content + reader->content_len, at, len < room ? len : room);
    reader->content_len += (uint32_t) (len < room ? len : room);
    return 0;
}

static int on_message_complete(llhttp_t *parser) {
    struct work *work = parser->data;
    work->message->keep_alive = (uint8_t) llhttp_should_keep_alive(parser);
    return HPE_PAUSED;
}

static void begin(struct work *work, struct message *message) {
    memset(message, 0, sizeof *message);
    message->outcome = INCOMPLETE;
    message->content.at = work->reader->content_len;
    message->fields.at = work->reader->fields_len;
    work->message = message;
    work->last = 0;
}

static void end(struct work *work, int outcome, size_t at) {
    struct message *message = work->message;
    message->outcome = (uint8_t) outcome;
    message->end = (uint32_t) at;
    message->content.len = work->reader->content_len - message->content.at;
    message->fields.len = work->reader->fields_len - message->fields.at;
}

/* Reads up to `max` messages from the stream, all requests or all responses. `is_last` says that the
   connection ends behind it. The messages of bit N of `no_content` answer a HEAD. Returns how many
   messages were noted; the last one may not be complete. */
int second_read(struct reader *reader, const char *stream, size_t len, int are_responses, int is_last,
                unsigned no_content, struct message *messages, int max) {
    llhttp_settings_t settings;
    llhttp_t parser;
    struct work work = {0};
    int count = 0, finals = 0;
    size_t at = 0;

    llhttp_settings_init(&settings);
    settings.on_message_begin = on_message_begin;
    settings.on_method = on_method;
    settings.on_url = on_url;
    settings.on_header_field = on_field;
    settings.on_header_value = on_value;
    settings.on_headers_complete = on_headers_complete;
    settings.on_body = on_body;
    settings.on_message_complete = on_message_complete;
    llhttp_init(&parser, are_responses ? HTTP_RESPONSE : HTTP_REQUEST, &settings);
    reader->content_len = reader->fields_len = 0;
    work.reader = reader;
    work.stream = stream;
    parser.data = &work;

    while (count < max) {
        llhttp_errno_t error;
        begin(&work, &messages[count]);
        work.no_content = (no_content >> (finals < 31 ? finals : 31)) & 1;
        error = llhttp_execute(&parser, stream + at, len - at);
        if (error == HPE_PAUSED_UPGRADE && !work.message->began) {
            /* The pause behind the end of the message before. */
            at = (size_t) (llhttp_get_error_pos(&parser) - stream);
            llhttp_resume_after_upgrade(&parser);
            continue;
        }
        if (error == HPE_PAUSED) {
            at = (size_t) (llhttp_get_error_pos(&parser) - stream);
            end(&work, COMPLETE, at);
            finals += messages[count].status / 100 != 1;
            count++;
            llhttp_resume(&parser);
            if (!messages[count - 1].keep_alive) return count;
            continue;
        }
        if (error != HPE_OK) {
            end(&work, REFUSED, (size_t) (llhttp_get_error_pos(&parser) - stream));
            return count + 1;
        }
        if (is_last) {
            error = llhttp_finish(&parser);
            if (!work.message->began) return count;
            end(&work, error == HPE_OK || error == HPE_PAUSED ? COMPLETE : INCOMPLETE, len);
            return count + 1;
        }
        if (!work.message->began) return count;
        end(&work, INCOMPLETE, len);
        return count + 1;
    }
    return count;
}
