/*
 * key_holder: private keys of this process's identity in a process of their own
 * (postern-key-holder), which signs handshakes of TLS 1.3 with them and nothing else.
 * docs/key-holder.md says who may do what.
 *
 * Started before this process gives up starting programs. A watcher there starts the holder anew
 * when it ends; every key is gone then, and the owner is told. A signature is one question and one
 * answer with a deadline, on a channel that no other thread uses meanwhile: no lock. After a
 * deadline has passed all are refused at once for a while, so that a holder that hangs costs a
 * worker little of its time.
 *
 * Thread: signing with its keys, and freeing them, any; all else the loop's. It outlives its keys.
 */
#ifndef POSTERN_KEY_HOLDER_H
#define POSTERN_KEY_HOLDER_H

#include <postern/away_key.h>
#include <postern/err.h>
#include <postern/loop.h>
#include <postern/sandbox.h>
#include <sys/types.h>

enum {
    KEY_HOLDER_SIGN_MS = 250,   /* for a handshake */
    KEY_HOLDER_PAUSE_MS = 1000, /* after that was not enough */
    KEY_HOLDER_MAKE_MS = 2000,  /* for a new key, on the main thread */
    KEY_HOLDER_PROBES = 3,      /* unanswered ones, a second apart, until it is ended */
};

enum key_holder_event {
    KEY_HOLDER_UP,      /* a holder is there; it has no key of before */
    KEY_HOLDER_ENDED,   /* all keys are gone; another one comes. `why` says how it ended */
    KEY_HOLDER_TIMEOUT, /* a signature did not come in time; at most once a second */
    KEY_HOLDER_STUCK,   /* it does not answer and is ended */
    KEY_HOLDER_LOST,    /* there is no holder any more and none will come */
};

struct key_holder_events {
    /* From the loop, never from within a function below. `why` may be NULL. */
    void (*on_event)(void *arg, enum key_holder_event event, const struct err *why);
};

struct key_holder_options {
    unsigned n_threads;  /* that sign, at most at once; the loop's included */
    bool server, client; /* roles that are signed for */
};

struct key_holder_status {
    bool up, answers, lost;
    pid_t pid;                              /* of the holder; 0: there is none */
    uint32_t n_started;                     /* how many there were */
    uint64_t signatures, refused, timeouts; /* by what came of our questions */
};
/* What it says of itself. */
struct key_holder_report {
    struct sandbox_report sandbox;
    struct sandbox_landlock landlock;
    uint64_t signatures, refused;
    unsigned n_keys;
    bool all_locked, keys_locked; /* kept out of swap: all its memory; that of keys */
};

struct key_holder;
/* Starts the executable. events and arg are borrowed. */
struct key_holder *key_holder_start(struct loop *loop, const struct key_holder_options *options,
                                    const struct key_holder_events *events, void *arg,
                                    struct err *err);
/* Before the loop is freed, where keys outlive it: no news any more, signatures as before. */
void key_holder_leave_loop(struct key_holder *h);
/* The process ends; after the last use of its keys. Takes NULL. */
struct key_holder *key_holder_free(struct key_holder *h);

/* A new P-256 key (EVP_PKEY_free drops it there), and a certificate request that states it and
 * nothing else (free()). Waits for the answer. */
int key_holder_make(struct key_holder *h, EVP_PKEY **ret_key, uint8_t **ret_request,
                    size_t *ret_len, struct err *err);
void key_holder_get_status(const struct key_holder *h, struct key_holder_status *ret);
/* Asks it; waits for the answer, KEY_HOLDER_SIGN_MS at most. */
int key_holder_get_report(struct key_holder *h, struct key_holder_report *ret, struct err *err);

#endif
