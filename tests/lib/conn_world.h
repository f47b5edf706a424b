/*
 * conn_world: whole connections in a test: a client-side and a server-side worker in this process,
 * each with its own thread, between a client and a workload that the test plays over loopback.
 * Identities come from the certificate factory; everything else is what the product runs. Asserts
 * instead of failing.
 */
#ifndef POSTERN_TESTS_CONN_WORLD_H
#define POSTERN_TESTS_CONN_WORLD_H

#include "certs.h"

#include <postern/conn.h>

enum { WAIT_MS = 10000 };

/* --- one side --- */
struct side {
    char dir[64];
    uint64_t generation;
    struct snapshot_files *files;
    struct snapshot_identity *identity;
    struct conn_shared shared;
    struct conn_worker *worker;
    const char *mesh;                     /* of "mesh.yaml" at the start; NULL: none */
    const struct resolve_state *resolved; /* what names mean; NULL: nothing */
    struct balance *balance;              /* of its endpoints */
    struct claims_keys *claims;           /* lent; NULL: those of its files */
    const struct snapshot_strict *strict; /* permissive ports that have turned; NULL: none */
    int log_wake, log_fd;
    char log_path[96];
};
struct world {
    struct side client, server;
    int workload;                /* listening */
    uint16_t port, tls, backend; /* where the client connects, and so on */
    int held[2];                 /* the first two of these */
    struct certs_pair root;
    struct x509_trust *trust;
};

/* For sides beside the two of a world. */
void side_start(struct side *s, const char *conf, const char *policy);
void side_stop(struct side *s);
/* Until its worker goes by what was posted last. */
void side_settled(struct side *s);
/* "mesh.yaml" anew, in force and settled. */
void side_mesh(struct side *s, const char *mesh);
/* A file of this side's directory: "policy.yaml" is what world_new was given. */
void side_write(const struct side *s, const char *name, const char *text);
/* Its files once more, as a reload reads them. */
struct snapshot_files *side_load(struct side *s);
/* Puts files and identity of the side in force. */
void side_post(struct side *s);
/* "policy.yaml" anew, in force. */
void side_policy(struct side *s, const char *policy);
/* Waits until a line of the log holds both words, and returns it. */
char *log_line(struct side *s, const char *a, const char *b);

/* --- the world ---
 * `listener` is what the server's inbound listener says behind direction and address; of an
 * explicit one that is known: its protocol, and further lines of the file, which may have timeouts
 * of their own. policy NULL: none. identities: at once. */
struct world *world_new(const char *listener, const char *policy, bool identities);
struct world *world_new_explicit(const char *protocol, const char *policy, bool identities);
/* `client`: further lines of the client's outbound listener. */
struct world *world_new_both(const char *protocol, const char *client, const char *policy);
void world_free(struct world *w);
/* One that w->trust vouches for, from now on. */
struct snapshot_identity *make_identity(struct world *w, const char *id);

/* The client, and the workload's next connection. */
int dial(uint16_t port);
int take(struct world *w);
bool nobody_came(struct world *w);

/* --- what both do --- */
void say(int fd, const char *text);
void hear(int fd, const char *text);
void hear_end(int fd);
/* Reads on until a reset, and closes. */
void hear_reset(int fd);
/* Everything until the end, or until the text has come. */
const char *hear_until(int fd, const char *text);
void expect_in(const char *text, const char *part);

#endif
