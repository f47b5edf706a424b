/*
 * ghostunnel: a command line of ghostunnel 1.11, said again as a Gateway file.
 *
 * The text is what a shell would be given: words, quotes, assignments in front of the command.
 * Every flag of `server` and `client` is carried over or refused by name, with the reason and the
 * way out; if anything is refused nothing comes out. Where it is done another way a note says so.
 * What comes out has been taken by the parser of Gateway files. docs/ghostunnel.md has the table.
 *
 * Pure but for options.look. Thread: any.
 */
#ifndef POSTERN_GHOSTUNNEL_H
#define POSTERN_GHOSTUNNEL_H

#include <postern/buf.h>
#include <postern/err.h>
#include <postern/str.h>
#include <stdbool.h>

enum { GHOSTUNNEL_TEXT_MAX = 64 * 1024, GHOSTUNNEL_OUT_MAX = 1 << 20 };

enum ghostunnel_store {
    GHOSTUNNEL_STORE_UNKNOWN,
    GHOSTUNNEL_STORE_PEM,
    GHOSTUNNEL_STORE_PKCS12,
    GHOSTUNNEL_STORE_JCEKS,
};
/* What a keystore's first bytes say. */
enum ghostunnel_store ghostunnel_store_of(struct str head);

struct ghostunnel_options {
    const char *directory;       /* what relative paths stand against: absolute */
    const char *passphrase_file; /* in the place of --storepass; NULL: not known */
    const char *pin_file;        /* in the place of --pkcs11-pin; NULL: not known */
    const char *token_key;       /* the label of the token's key; NULL: not known */
    const char *server_id;       /* the SPIFFE ID that a client must meet; NULL: not known */
    const char *metrics;         /* ADDRESS:PORT for metrics; NULL: none */
    /* Of a keystore whose name does not say what it is; NULL: nobody looks. */
    enum ghostunnel_store (*look)(void *arg, const char *path);
    void *look_arg;
};
/* Told of each refusal, and of each note: one line, no control characters, no secrets. */
typedef void (*ghostunnel_tell_fn)(void *arg, bool refused, const char *text);
/* 0 and a Gateway file appended to out; -1 if anything was refused, or the text is no such command
 * (then err says why). */
int ghostunnel_convert(struct str text, const struct ghostunnel_options *options,
                       ghostunnel_tell_fn tell, void *arg, struct buf *out, struct err *err);

#endif
