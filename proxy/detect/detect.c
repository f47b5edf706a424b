/* Telling protocols by first bytes: three readings of the same bytes at once, each of which drops
 * out at the first byte that it cannot have. */
#include <postern/detect.h>

enum { AS_HTTP1 = 1, AS_HTTP2 = 2, AS_TLS = 4, AS_ANY = 7 };

static const char PREFACE[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
enum { PREFACE_LEN = sizeof(PREFACE) - 1 };

/* --- names ------------------------------------------------------------------------------------ */

const char *detect_protocol_name(enum detect_protocol p)
{
    static const char *const names[DETECT_PROTOCOL_COUNT] = {
#define NAME(name, word) [DETECT_##name] = word,
        DETECT_PROTOCOLS(NAME)
#undef NAME
    };
    return names[p];
}

const char *detect_how_name(enum detect_how h)
{
    static const char *const names[DETECT_HOW_COUNT] = {
#define NAME(name, word) [DETECT_BY_##name] = word,
        DETECT_HOWS(NAME)
#undef NAME
    };
    return names[h];
}

/* --- readings: what one more byte means ------------------------------------------------------- */
enum reading { DROPS_OUT, GOES_ON, IS_IT };

static bool is_token(uint8_t b)
{
    static const char others[] = "!#$%&'*+-.^_`|~";
    if ((b >= 'A' && b <= 'Z') || (b >= 'a' && b <= 'z') || (b >= '0' && b <= '9')) {
        return true;
    }
    for (size_t i = 0; i < sizeof(others) - 1; i++) {
        if (b == (uint8_t)others[i]) {
            return true;
        }
    }
    return false;
}

/* method SP target SP "HTTP/1." digit. From STEP_VERSION on, a step is a byte of the version. */
enum { STEP_METHOD, STEP_TARGET_BEGIN, STEP_TARGET, STEP_VERSION };
static const char VERSION[] = "HTTP/1.";
enum { VERSION_LEN = sizeof(VERSION) - 1 };

static bool is_digit(uint8_t b)
{
    return b >= '0' && b <= '9';
}

static enum reading read_request_line(struct detect_scan *s, uint8_t b)
{
    switch (s->step) {
    case STEP_METHOD:
        if (b == ' ' && s->n > 0) {
            s->step = STEP_TARGET_BEGIN;
            return GOES_ON;
        }
        return is_token(b) && s->n < DETECT_METHOD_MAX ? GOES_ON : DROPS_OUT;
    case STEP_TARGET_BEGIN:
        s->step = STEP_TARGET;
        return b > ' ' && b < 0x7f ? GOES_ON : DROPS_OUT;
    case STEP_TARGET:
        if (b == ' ') {
            s->step = STEP_VERSION;
            return GOES_ON;
        }
        return b > ' ' && b < 0x7f ? GOES_ON : DROPS_OUT;
    default:
        break;
    }
    unsigned at = s->step - (unsigned)STEP_VERSION;
    if (at == VERSION_LEN) {
        return is_digit(b) ? IS_IT : DROPS_OUT;
    }
    s->step++;
    return b == (uint8_t)VERSION[at] ? GOES_ON : DROPS_OUT;
}

static enum reading read_status_line(const struct detect_scan *s, uint8_t b)
{
    if (s->n < VERSION_LEN) {
        return b == (uint8_t)VERSION[s->n] ? GOES_ON : DROPS_OUT;
    }
    return is_digit(b) ? IS_IT : DROPS_OUT;
}

static enum reading read_preface(const struct detect_scan *s, uint8_t b)
{
    if (b != (uint8_t)PREFACE[s->n]) {
        return DROPS_OUT;
    }
    return s->n == PREFACE_LEN - 1 ? IS_IT : GOES_ON;
}

/* Length (24 bits), type 4, no flags (so no acknowledgement), stream 0; settings of six bytes. */
static enum reading read_settings(const struct detect_scan *s, uint8_t b)
{
    enum { FRAME_HEAD = 9, FRAME_MAX = 16384, SETTING = 6 };
    unsigned length = (unsigned)s->last << 8 | b;
    switch (s->n) {
    case 0:
        return b == 0 ? GOES_ON : DROPS_OUT;
    case 1:
        return GOES_ON;
    case 2:
        return length % SETTING == 0 && length <= FRAME_MAX ? GOES_ON : DROPS_OUT;
    case 3:
        return b == 4 ? GOES_ON : DROPS_OUT;
    default:
        break;
    }
    if (b != 0) {
        return DROPS_OUT;
    }
    return s->n == FRAME_HEAD - 1 ? IS_IT : GOES_ON;
}

/* Handshake (22), version 3.x, length, and the first byte of the message in it. */
static enum reading read_record(const struct detect_scan *s, enum detect_side side, uint8_t b)
{
    enum { RECORD_MAX = 16384, HANDSHAKE = 22, CLIENT_HELLO = 1, SERVER_HELLO = 2 };
    unsigned length = (unsigned)s->last << 8 | b;
    bool ok = false;
    switch (s->n) {
    case 0:
        ok = b == HANDSHAKE;
        break;
    case 1:
        ok = b == 3;
        break;
    case 2:
        ok = b <= 4;
        break;
    case 3:
        ok = true;
        break;
    case 4:
        ok = length > 0 && length <= RECORD_MAX;
        break;
    default:
        return b == (side == DETECT_SIDE_CLIENT ? CLIENT_HELLO : SERVER_HELLO) ? IS_IT : DROPS_OUT;
    }
    return ok ? GOES_ON : DROPS_OUT;
}

static enum reading read_as(struct detect_scan *s, enum detect_side side, unsigned what, uint8_t b)
{
    bool client = side == DETECT_SIDE_CLIENT;
    switch (what) {
    case AS_HTTP1:
        return client ? read_request_line(s, b) : read_status_line(s, b);
    case AS_HTTP2:
        return client ? read_preface(s, b) : read_settings(s, b);
    default:
        return read_record(s, side, b);
    }
}

/* --- all of them ------------------------------------------------------------------------------ */

static enum detect_protocol feed_byte(struct detect_scan *s, enum detect_side side, uint8_t b)
{
    static const enum detect_protocol is[] = {
        [AS_HTTP1] = DETECT_HTTP1, [AS_HTTP2] = DETECT_HTTP2, [AS_TLS] = DETECT_TLS};
    for (unsigned what = AS_HTTP1; what <= AS_TLS; what <<= 1) {
        if ((s->excluded & what) != 0) {
            continue;
        }
        enum reading r = read_as(s, side, what, b);
        if (r == IS_IT) {
            return is[what];
        }
        if (r == DROPS_OUT) {
            s->excluded = (uint8_t)(s->excluded | what);
        }
    }
    s->last = b;
    s->n++;
    return s->excluded == AS_ANY || s->n >= DETECT_BYTES_MAX ? DETECT_TCP : DETECT_UNKNOWN;
}

enum detect_protocol detect_feed(struct detect_scan *scan, enum detect_side side,
                                 const uint8_t *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        enum detect_protocol p = feed_byte(scan, side, data[i]);
        if (p != DETECT_UNKNOWN) {
            return p;
        }
    }
    return DETECT_UNKNOWN;
}

bool detect_race_feed(struct detect_race *race, enum detect_side side, const uint8_t *data,
                      size_t n)
{
    if (race->how != DETECT_BY_NONE) {
        return true;
    }
    enum detect_protocol p = detect_feed(&race->sides[side], side, data, n);
    if (p == DETECT_UNKNOWN) {
        return false;
    }
    race->protocol = (uint8_t)p;
    race->how = side == DETECT_SIDE_CLIENT ? DETECT_BY_CLIENT : DETECT_BY_SERVER;
    return true;
}
