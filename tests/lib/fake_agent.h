/*
 * fake_agent: an agent for unit tests, on the test's own loop. Serves FetchX509SVID,
 * FetchX509Bundles, FetchJWTBundles and SignX509SVID on a Unix socket in a directory of its own,
 * from one authority in trust domain example.org; each answer can be made to fail. Asserts instead
 * of failing.
 */
#ifndef POSTERN_TESTS_FAKE_AGENT_H
#define POSTERN_TESTS_FAKE_AGENT_H

#include <postern/grpc.h>
#include <postern/loop.h>
#include <postern/x509.h>

enum { FAKE_IDS_MAX = 4, FAKE_STREAMS_MAX = 8, FAKE_JWT_MAX = 4 };

struct fake_agent {
    /* What it answers; set at will. */
    enum grpc_status sign_status, svid_status, bundles_status, jwt_status; /* GRPC_OK: it does it */
    struct {
        const char *name, *set;
    } jwt[FAKE_JWT_MAX]; /* what FetchJWTBundles tells */
    int64_t ttl_s;
    const char *ids[FAKE_IDS_MAX]; /* in order; the first is the default */
    const char *sign_as;           /* NULL: what was asked for; else a lie */
    bool corrupt;                  /* messages are junk */
    /* What it has seen. */
    unsigned n_connections, n_sign, n_svids, n_bundles, n_jwt;
    unsigned n_without_header;
    char last_sign_id[256];

    /* Its own. */
    struct loop *loop;
    char dir[64];
    char path[80];
    int listen_fd;
    struct loop_io *io;
    struct grpc_server *server;
    struct grpc_call *streams[FAKE_STREAMS_MAX];
    EVP_PKEY *ca_key;
    X509 *ca;
    uint8_t *svids_message; /* the last one, so that it can be sent again as it is */
    size_t svids_len;
};

struct fake_agent *fake_agent_new(struct loop *loop);
struct fake_agent *fake_agent_free(struct fake_agent *a);
/* The socket appears and goes; connections go with it. New agents are up. */
void fake_agent_up(struct fake_agent *a);
void fake_agent_down(struct fake_agent *a);
/* A new authority takes the place of the old one in bundles and signatures. Push to tell. */
void fake_agent_new_authority(struct fake_agent *a);
/* To every open stream: its state as it is now. renew: with newly made SVIDs. */
void fake_agent_push(struct fake_agent *a, bool renew);
/* Ends every open stream. */
void fake_agent_end(struct fake_agent *a, enum grpc_status status);

#endif
