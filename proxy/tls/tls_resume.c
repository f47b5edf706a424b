/* Resumption as a stream sees it: what it offers or is offered, and what is asked at the end. */
#include <postern/tls.h>

#include "tls_priv.h"

#include <openssl/err.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>

static bool hash_text(EVP_MD_CTX *md, struct str text)
{
    uint64_t n = text.n;
    return EVP_DigestUpdate(md, &n, sizeof(n)) == 1 &&
           (n == 0 || EVP_DigestUpdate(md, text.p, text.n) == 1);
}

/* All that has to be the same for a session to be used. */
static bool make_key(struct tls_stream *s, struct str destination)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 &&
              EVP_DigestUpdate(md, tls_tickets_name(s->tickets), TLS_TICKETS_NAME_LEN) == 1 &&
              EVP_DigestUpdate(md, s->party->id, sizeof(s->party->id)) == 1 &&
              hash_text(md, destination);
    for (size_t i = 0; ok && i < s->n_expected; i++) {
        ok = hash_text(md, s->expected[i]);
    }
    ok = ok && EVP_DigestFinal_ex(md, s->resume->key, NULL) == 1;
    EVP_MD_CTX_free(md);
    return ok;
}

void tls_resume_take(struct tls_stream *s, struct tls_peer *peer)
{
    tls_peer_unref(s->resume->peer);
    s->resume->peer = peer;
    memcpy(s->resume->party, s->party->id, sizeof(s->resume->party));
}

/* Not offered: one whose server would be refused today. */
static void offer(struct tls_stream *s)
{
    struct tls_peer *peer = NULL;
    SSL_SESSION *session = tls_sessions_take(s->worker->sessions, s->resume->key, &peer);
    if (session == NULL) {
        return;
    }
    if (!tls_peer_holds_now(s, peer)) {
        free(s->failure); /* which is told by the full handshake, if it is so there too */
        s->failure = NULL;
    } else if (SSL_SESSION_is_resumable(session) == 1 && SSL_set_session(s->ssl, session) == 1) {
        tls_resume_take(s, tls_peer_ref(peer));
    }
    SSL_SESSION_free(session);
    tls_peer_unref(peer);
}

bool tls_resume(struct tls_stream *s, const struct tls_tickets *tickets, struct str destination)
{
    if (tickets == NULL || !s->party->resumption) {
        return true;
    }
    s->resume = (struct tls_resume *)calloc(1, sizeof(*s->resume));
    if (s->resume == NULL) {
        return false;
    }
    s->tickets = tickets;
    if (s->party->server) {
        return SSL_set_num_tickets(s->ssl, 1) == 1;
    }
    if (!make_key(s, destination)) {
        return false;
    }
    offer(s);
    return true;
}

void tls_resume_rebase(struct tls_stream *s, const struct tls_tickets *tickets)
{
    if (s->resume == NULL) {
        return;
    }
    s->tickets = tickets;
    if (tickets == NULL) {
        (void)SSL_set_num_tickets(s->ssl, 0);
    }
}

/* A server's new ticket. 1: the session is ours. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls_stream *s = (struct tls_stream *)SSL_get_app_data(ssl);
    return s->resume != NULL && s->established && s->peer != NULL && s->peer->chain != NULL &&
                   SSL_SESSION_get_protocol_version(session) == TLS1_3_VERSION &&
                   tls_sessions_keep(&s->worker->sessions, s->resume->key, session, s->peer)
               ? 1
               : 0;
}

bool tls_resume_set_up(SSL_CTX *c, const struct tls_party *p)
{
    SSL_CTX_clear_options(c, SSL_OP_NO_TICKET);
    if (p->server) {
        return tls_tickets_set_up(c, p);
    }
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(c, on_session);
    return true;
}

static bool refuse(struct tls_stream *s, enum x509_verdict v)
{
    struct tls_failure *f = tls_failure_get(s);
    if (f != NULL) {
        f->step = TLS_STEP_IDENTITY;
        f->verdict = v;
        err_set(&f->err, ERR_DENIED, "who resumes this session would not be let in anew: %s",
                x509_verdict_name(v));
    }
    return false;
}

/* The verify callback was not asked: whose session it is was judged when it was offered, and is now
 * by what is in force. */
bool tls_resume_finish(struct tls_stream *s)
{
    struct tls_resume *r = s->resume;
    if (SSL_session_reused(s->ssl) != 1) {
        if (r != NULL) {
            r->peer = tls_peer_unref(r->peer);
        }
        return true;
    }
    if (r == NULL || r->peer == NULL || SSL_version(s->ssl) != TLS1_3_VERSION) {
        return refuse(s, X509_NO_CERTIFICATE); /* nobody of ours has said yes */
    }
    tls_peer_unref(s->peer);
    s->peer = r->peer;
    r->peer = NULL;
    bool same = memcmp(r->party, s->party->id, sizeof(r->party)) == 0;
    enum x509_verdict v = same ? X509_OK : tls_peer_judge(s->peer, s->party);
    return v == X509_OK ? tls_peer_holds_now(s, s->peer) : refuse(s, v);
}

struct tls_resume *tls_resume_free(struct tls_resume *r)
{
    if (r != NULL) {
        tls_peer_unref(r->peer);
        free(r);
    }
    return NULL;
}

void tls_worker_forget_sessions(struct tls_worker *w)
{
    w->sessions = tls_sessions_free(w->sessions);
}

bool tls_resumed(const struct tls_stream *s)
{
    return s->established && SSL_session_reused(s->ssl) == 1;
}
