/*
 * Where a body ends (RFC 9112 6.3, 7.1). Chunk lines are read by the letter: servers differ in what
 * they forgive there, and each such difference has been a way to hide a request in a body.
 */
#include <postern/http1.h>

#include "http1_priv.h"

#include <postern/err.h>

enum {
    SIZE_DIGITS_MAX = 15,       /* below 2^60: no sum of ours can overflow */
    EXTENSION_LINE_MAX = 256,   /* of one chunk */
    EXTENSIONS_MAX = 16 * 1024, /* of one message */
    TRAILERS_MAX = 8 * 1024,    /* bytes of the whole section */
    TRAILERS_COUNT_MAX = 32,
};

enum state {
    SIZE_START,
    SIZE,
    EXT_NAME_START,
    EXT_NAME,
    EXT_VALUE_START,
    EXT_VALUE,
    EXT_QUOTED,
    EXT_ESCAPE,
    EXT_AFTER_QUOTED,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER_START,
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    END_LF,
    OVER,
};

void http1_body_init(struct http1_body *body, enum http1_framing framing, uint64_t length)
{
    *body = (struct http1_body){.framing = (uint8_t)framing};
    if (framing == HTTP1_BODY_LENGTH) {
        body->left = length;
    }
    bool over = framing == HTTP1_BODY_NONE || (framing == HTTP1_BODY_LENGTH && length == 0);
    body->state = over ? OVER : framing == HTTP1_BODY_CHUNKED ? SIZE_START : DATA;
}

/* --- the chunk line ----------------------------------------------------------------------------*/

static enum http1_reason size_byte(struct http1_body *b, uint8_t c)
{
    if (http1_is(c, HTTP1_HEXDIG)) {
        if (b->digits >= SIZE_DIGITS_MAX) {
            return HTTP1_CHUNK_SIZE;
        }
        b->digits++;
        b->left = b->left << 4 | http1_hex(c);
        b->state = SIZE;
        return HTTP1_NONE;
    }
    if (b->state == SIZE && c == '\r') {
        b->state = SIZE_LF;
        return HTTP1_NONE;
    }
    if (b->state == SIZE && c == ';') {
        b->state = EXT_NAME_START;
        b->line_len = 0;
        return HTTP1_NONE;
    }
    return c == '\n' ? HTTP1_BARE_LF : HTTP1_CHUNK_SIZE;
}

/* What may end an extension: the next one or the line. */
static bool ext_ends(struct http1_body *b, uint8_t c)
{
    if (c != ';' && c != '\r') {
        return false;
    }
    b->state = c == ';' ? EXT_NAME_START : SIZE_LF;
    return true;
}

/* ";" name ["=" (token / quoted-string)], without the blanks that RFC 9112 7.1.1 calls bad. */
static enum http1_reason ext_byte(struct http1_body *b, uint8_t c)
{
    bool token = http1_is(c, HTTP1_TOKEN);
    if (c == '\n') {
        return HTTP1_BARE_LF;
    }
    if (++b->line_len > EXTENSION_LINE_MAX || ++b->ext_total > EXTENSIONS_MAX) {
        return HTTP1_CHUNK_EXTENSION;
    }
    switch (b->state) {
    case EXT_NAME_START:
        b->state = EXT_NAME;
        return token ? HTTP1_NONE : HTTP1_CHUNK_EXTENSION;
    case EXT_NAME:
        if (c == '=') {
            b->state = EXT_VALUE_START;
            return HTTP1_NONE;
        }
        return token || ext_ends(b, c) ? HTTP1_NONE : HTTP1_CHUNK_EXTENSION;
    case EXT_VALUE_START:
        b->state = c == '"' ? EXT_QUOTED : EXT_VALUE;
        return token || c == '"' ? HTTP1_NONE : HTTP1_CHUNK_EXTENSION;
    case EXT_VALUE:
        return token || ext_ends(b, c) ? HTTP1_NONE : HTTP1_CHUNK_EXTENSION;
    case EXT_QUOTED:
        b->state = c == '"' ? EXT_AFTER_QUOTED : c == '\\' ? EXT_ESCAPE : EXT_QUOTED;
        return http1_is(c, HTTP1_VALUE) ? HTTP1_NONE : HTTP1_CHUNK_EXTENSION;
    case EXT_ESCAPE:
        b->state = EXT_QUOTED;
        return http1_is(c, HTTP1_VALUE) ? HTTP1_NONE : HTTP1_CHUNK_EXTENSION;
    default: /* EXT_AFTER_QUOTED */
        return ext_ends(b, c) ? HTTP1_NONE : HTTP1_CHUNK_EXTENSION;
    }
}

static enum http1_reason line_end(struct http1_body *b, uint8_t c)
{
    if (c != '\n') {
        return HTTP1_BARE_CR;
    }
    if (b->state == END_LF) {
        b->state = OVER;
        return HTTP1_NONE;
    }
    if (b->state == TRAILER_LF) {
        b->state = TRAILER_START;
        return HTTP1_NONE;
    }
    b->state = b->left > 0 ? DATA : TRAILER_START;
    b->line_len = 0;
    return HTTP1_NONE;
}

/* --- trailers ----------------------------------------------------------------------------------*/

/* RFC 9110 6.5.1: nothing that frames, routes, authenticates or describes the content. Some servers
 * merge trailers into the headers, so who the caller is may not come this way either. */
static bool may_be_trailer(const struct http1_body *b)
{
    char folded[HTTP1_FOLD_MAX];
    size_t known = b->name_len < HTTP1_FOLD_MAX ? b->name_len : HTTP1_FOLD_MAX;
    bool exact = true;
    for (size_t i = 0; i < known; i++) {
        folded[i] = (char)http1_fold_byte((uint8_t)b->name[i]);
        exact = exact && (http1_is((uint8_t)b->name[i], HTTP1_ALNUM) || b->name[i] == '-');
    }
    return http1_field_of_folded(folded, b->name_len, exact) == HTTP1_FIELD_OTHER;
}

static enum http1_reason trailer_name_byte(struct http1_body *b, uint8_t c)
{
    bool start = b->state == TRAILER_START;
    if (http1_is(c, HTTP1_TOKEN)) {
        if (start) {
            b->name_len = 0;
            if (++b->n_trailers > TRAILERS_COUNT_MAX) {
                return HTTP1_TRAILER_LONG;
            }
        }
        if (b->name_len < HTTP1_FOLD_MAX) {
            b->name[b->name_len] = (char)c;
        }
        b->name_len = (uint8_t)(b->name_len + (b->name_len <= HTTP1_FOLD_MAX ? 1 : 0));
        b->state = TRAILER_NAME;
        return HTTP1_NONE;
    }
    switch (c) {
    case ':':
        b->state = TRAILER_VALUE;
        if (start) {
            return HTTP1_HEADER_NAME_EMPTY;
        }
        return may_be_trailer(b) ? HTTP1_NONE : HTTP1_TRAILER_FORBIDDEN;
    case '\r':
        b->state = END_LF;
        return start ? HTTP1_NONE : HTTP1_HEADER_NO_COLON;
    case '\n':
        return HTTP1_BARE_LF;
    case ' ':
    case '\t':
        return start ? HTTP1_HEADER_FOLDED : HTTP1_HEADER_NAME_SPACE;
    default:
        return c < 0x20 || c == 0x7f ? HTTP1_CONTROL_BYTE : HTTP1_HEADER_NAME_BYTE;
    }
}

static enum http1_reason trailer_byte(struct http1_body *b, uint8_t c)
{
    if (++b->line_len > TRAILERS_MAX) {
        return HTTP1_TRAILER_LONG;
    }
    if (b->state != TRAILER_VALUE) {
        return trailer_name_byte(b, c);
    }
    if (c == '\r') {
        b->state = TRAILER_LF;
        return HTTP1_NONE;
    }
    return http1_is(c, HTTP1_VALUE) ? HTTP1_NONE : c == '\n' ? HTTP1_BARE_LF : HTTP1_CONTROL_BYTE;
}

/* --- all together ------------------------------------------------------------------------------*/

static enum http1_reason chunk_byte(struct http1_body *b, uint8_t c)
{
    switch ((enum state)b->state) {
    case SIZE_START:
    case SIZE:
        return size_byte(b, c);
    case SIZE_LF:
    case TRAILER_LF:
    case END_LF:
        return line_end(b, c);
    case DATA_CR:
        b->state = DATA_LF;
        return c == '\r' ? HTTP1_NONE : HTTP1_CHUNK_END;
    case DATA_LF:
        b->state = SIZE_START;
        b->digits = 0;
        return c == '\n' ? HTTP1_NONE : HTTP1_CHUNK_END;
    case TRAILER_START:
    case TRAILER_NAME:
    case TRAILER_VALUE:
        return trailer_byte(b, c);
    case EXT_NAME_START:
    case EXT_NAME:
    case EXT_VALUE_START:
    case EXT_VALUE:
    case EXT_QUOTED:
    case EXT_ESCAPE:
    case EXT_AFTER_QUOTED:
        return ext_byte(b, c);
    case DATA:
    case OVER:
        break;
    }
    /* A byte of data, or behind the end. */
    POSTERN_ASSERT(b->state != DATA && b->state != OVER);
    return HTTP1_CHUNK_END;
}

enum http1_result http1_body_feed(struct http1_body *body, const uint8_t *data, size_t len,
                                  size_t *ret_used, struct http1_error *ret_error)
{
    size_t i = 0;
    if (body->framing == HTTP1_BODY_UNTIL_CLOSE) {
        *ret_used = len;
        return HTTP1_MORE;
    }
    while (body->state != OVER && i < len) {
        if (body->state != DATA) {
            enum http1_reason reason = chunk_byte(body, data[i]);
            if (reason != HTTP1_NONE) {
                *ret_used = i;
                return http1_refuse(ret_error, reason, i);
            }
            i++;
            continue;
        }
        size_t n = len - i < body->left ? len - i : (size_t)body->left;
        i += n;
        body->left -= n;
        if (body->left == 0) {
            body->state = body->framing == HTTP1_BODY_CHUNKED ? DATA_CR : OVER;
        }
    }
    *ret_used = i;
    return body->state == OVER ? HTTP1_DONE : HTTP1_MORE;
}

bool http1_body_ends_at_eof(const struct http1_body *body)
{
    return body->framing == HTTP1_BODY_UNTIL_CLOSE || body->state == OVER;
}
