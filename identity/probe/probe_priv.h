/*
 * probe: what the files of postern-rotate-probe share.
 *
 *   main.c      the question, the answer, and what is given up in between
 *   privs.c     all that it may do then
 *   place.c     connecting, within a deadline
 *   greeting.c  what PostgreSQL and MariaDB want to be asked before TLS: pure
 *   http.c      a request, and the head of its answer: pure
 *   tls.c       a handshake without trust, or with a CA; the leaf's digest
 *   verify.c    until the new leaf is served
 *   request.c   one HTTP request
 *
 * One thread, one question, then the end. Everything waits in poll, up to a deadline.
 */
#ifndef POSTERN_PROBE_PRIV_H
#define POSTERN_PROBE_PRIV_H

#include <openssl/ssl.h>
#include <postern/actions_wire.h>
#include <postern/buf.h>
#include <postern/err.h>

/* --- greeting.c ------------------------------------------------------------------------------- */
enum greeting { GREETING_MORE, GREETING_TLS, GREETING_NO_TLS, GREETING_BAD };
enum {
    GREETING_POSTGRES_SIZE = 8, /* of the question */
    GREETING_MYSQL_SIZE = 36,
    GREETING_MYSQL_MAX = 4096 + 4, /* of the server's first packet */
};
/* The question, and the server's answer to it: one byte. */
void greeting_postgres_ask(uint8_t ret[GREETING_POSTGRES_SIZE]);
enum greeting greeting_postgres(const uint8_t *bytes, size_t n);
/* The server's first packet, whole or as much as is there, and what is to be said to it. */
enum greeting greeting_mysql(const uint8_t *bytes, size_t n);
void greeting_mysql_ask(uint8_t ret[GREETING_MYSQL_SIZE]);

/* --- http.c ----------------------------------------------------------------------------------- */
enum { HTTP_HEAD_MAX = 16384, HTTP_INTERIM_MAX = 8 };
enum http_head { HTTP_HEAD_MORE, HTTP_HEAD_OK, HTTP_HEAD_BAD };
/* The heads of an answer up to the final one: its status. The same verdict however the bytes came.
 */
enum http_head http_head_parse(const char *bytes, size_t n, unsigned *ret_status);
bool http_request_write(const struct probe_question *q, struct buf *out);

/* --- place.c ---------------------------------------------------------------------------------- */
struct place {
    const struct conf_url *url;
    uint64_t until_ms; /* of os_now_ms */
    int fd;            /* owned; -1 */
};
/* Tries the addresses of the name one after the other. */
int place_connect(struct place *p, struct err *err);
void place_close(struct place *p);
/* Waits for readiness; -1: the time is over. */
int place_wait(struct place *p, short events, struct err *err);
int place_send(struct place *p, const void *bytes, size_t n, struct err *err);
/* At most n bytes; 0: the end. */
int place_recv(struct place *p, void *bytes, size_t n, size_t *ret_n, struct err *err);

/* --- tls.c ------------------------------------------------------------------------------------ */
struct probe_tls {
    SSL_CTX *ctx; /* owned */
    SSL *ssl;     /* owned; of this connection */
    bool has_leaf;
    uint8_t leaf[ACTIONS_SHA256_SIZE];
};
/* ca: PEM, who has to be behind the server's certificate; empty: nobody is asked for. */
int probe_tls_init(struct probe_tls *t, struct str ca, struct err *err);
void probe_tls_deinit(struct probe_tls *t);
/* The leaf may be known after a failure as well: has_leaf. `name`: to be asked for, and with a CA
 * to be in the certificate; NULL: none. */
int probe_tls_connect(struct probe_tls *t, struct place *p, const char *name, struct err *err);
int probe_tls_send(struct probe_tls *t, struct place *p, const void *bytes, size_t n,
                   struct err *err);
int probe_tls_recv(struct probe_tls *t, struct place *p, void *bytes, size_t n, size_t *ret_n,
                   struct err *err);
void probe_tls_close(struct probe_tls *t);

/* --- what is asked ---------------------------------------------------------------------------- */
void probe_verify(const struct probe_question *q, struct probe_tls *tls, uint64_t until_ms,
                  struct probe_answer *a);
void probe_request(const struct probe_question *q, struct probe_tls *tls, uint64_t until_ms,
                   struct probe_answer *a);
void probe_set_text(struct probe_answer *a, const struct err *err);

/* --- privs.c ---------------------------------------------------------------------------------- */
/* Becomes the user of the socket, or nobody; from then on only the place can be reached. */
int probe_confine(const struct conf_url *url, struct err *err);

#endif
