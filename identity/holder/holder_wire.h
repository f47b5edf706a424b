/*
 * What passes between a data plane and postern-key-holder. Fixed sizes, one struct a message.
 *
 * The control channel leads to the watcher: CHANNEL orders with a descriptor each, then BEGIN; news
 * come back. The other channels lead to the holder, one a thread of the asker's: one question, one
 * answer. A question that breaks the protocol ends its channel.
 */
#ifndef POSTERN_HOLDER_WIRE_H
#define POSTERN_HOLDER_WIRE_H

#include <postern/away_key.h>
#include <postern/sandbox.h>

enum {
    HOLDER_WIRE_VERSION = 1,
    HOLDER_FD_CONTROL = 3,
    HOLDER_CHANNELS_MAX = 260, /* workers, the main thread, some to spare */
    HOLDER_KEYS_MAX = 8,
    HOLDER_REQUEST_MAX = 512, /* a certificate request that states a P-256 key is 200 bytes */
    HOLDER_SIGNATURE_MAX = 80,
    HOLDER_POINT_LEN = 65,
};
/* For which roles it signs; a bit each. */
enum holder_role { HOLDER_SERVER = 1 << AWAY_SERVER, HOLDER_CLIENT = 1 << AWAY_CLIENT };

/* --- control: asker to watcher ---------------------------------------------------------------- */
enum holder_order_type {
    HOLDER_CHANNEL = 1, /* with a descriptor */
    HOLDER_BEGIN,       /* count: channels that were sent; roles */
    HOLDER_RESTART,     /* the holder does not answer: end it, start another */
};
struct holder_order {
    uint32_t version, type, count, roles;
};

/* --- control: watcher to asker ---------------------------------------------------------------- */
enum holder_news_type { HOLDER_STARTED = 1, HOLDER_ENDED };
struct holder_news {
    uint32_t version, type;
    uint32_t holder; /* the how-manieth: keys of another one are gone */
    int32_t pid;
    int32_t status;    /* ENDED: as of waitpid */
    uint32_t pause_ms; /* ENDED: until the next */
};

/* --- questions -------------------------------------------------------------------------------- */
enum holder_question_type { HOLDER_MAKE = 1, HOLDER_SIGN, HOLDER_DROP, HOLDER_REPORT };
struct holder_question {
    uint32_t version, type;
    uint64_t id;                             /* not 0; the answer has the same */
    uint32_t holder;                         /* SIGN, DROP: whose key; else 0 */
    uint32_t key;                            /* SIGN, DROP: its number; else 0 */
    uint32_t role;                           /* SIGN: enum away_role; else 0 */
    uint32_t transcript_len;                 /* SIGN: 32 or 48; else 0 */
    uint8_t transcript[AWAY_TRANSCRIPT_MAX]; /* zeros behind its length */
};

enum holder_result {
    HOLDER_DONE = 1,
    HOLDER_NO_KEY, /* of another holder, dropped, or never made */
    HOLDER_NOT_THAT_ROLE,
    HOLDER_FAILED, /* libcrypto did */
};
struct holder_answer {
    uint32_t version, result;
    uint64_t id;
    uint32_t holder, key;
    uint32_t len;                            /* SIGN */
    uint8_t signature[HOLDER_SIGNATURE_MAX]; /* DER */
};
/* To MAKE, in the place of holder_answer. */
struct holder_made {
    struct holder_answer head;
    uint8_t point[HOLDER_POINT_LEN];
    uint8_t unused[3];
    uint32_t request_len;
    uint8_t request[HOLDER_REQUEST_MAX];
};
/* To REPORT. */
struct holder_report {
    struct holder_answer head;
    struct sandbox_report sandbox;
    struct sandbox_landlock landlock;
    uint64_t signatures, refused;             /* since its start */
    uint32_t n_keys, all_locked, keys_locked; /* out of swap: all memory; that of keys */
    uint32_t unused;
};

#endif
