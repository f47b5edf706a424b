/* svid fetch --jwt and svid watch --jwt: a token from any SPIFFE agent, for people and scripts. */
#include "roles_priv.h"

#include <errno.h>
#include <poll.h>
#include <postern/buf.h>
#include <postern/jwt.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proto.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { REQUEST_MAX = 65536, RETRY_S = 5 };

struct fetch {
    struct role_svid_jwt_options options;
    int64_t renew_s; /* when half of the life of what came is over */
};

/* A client reads what an agent sends as strictly as a token of anybody: it is judged by whoever it
 * is shown to, but it has to be one. */
static int show(const struct fetch *f, const Workload__JWTSVID *svid, int64_t now_s,
                int64_t *ret_until_s, struct err *err)
{
    mem_auto(jwt_token_free) struct jwt_token *t = NULL;
    if (jwt_read(str_of(svid->svid), &t, err) == -1) {
        return err_prefix(err, "the agent sent what is no JWT-SVID");
    }
    *ret_until_s = t->expires_s;
    if (f->options.raw) {
        printf("%s\n", svid->svid);
        return 0;
    }
    role_print_text("identity", t->spiffe_id);
    for (size_t i = 0; i < t->n_audiences; i++) {
        role_print_text("audience", t->audiences[i]);
    }
    role_print_times(t->issued_s, t->expires_s, now_s);
    printf("key           %s ", jwt_alg_name(t->alg));
    role_put_text(t->kid != NULL ? t->kid : "(none named)");
    if (svid->hint[0] != '\0') {
        role_print_text("hint", svid->hint);
    }
    role_print_text("token", svid->svid);
    return 0;
}

static int write_file(const struct fetch *f, const char *token, struct err *err)
{
    if (mkdir(f->options.write_dir, 0700) == -1 && errno != EEXIST) {
        return err_sys(err, "%s", f->options.write_dir);
    }
    mem_autofree char *path = mem_must_printf("%s/jwt_svid.token", f->options.write_dir);
    return os_write_file_atomic(path, token, strlen(token), 0600, err);
}

static int take(struct fetch *f, const Workload__JWTSVIDResponse *r, struct err *err)
{
    int64_t now_s = os_wall_s(), until_s = 0;
    if (r->n_svids == 0) {
        return err_set(err, ERR_PROTOCOL, "the agent sent no token");
    }
    for (size_t i = 0; i < r->n_svids; i++) {
        if (i > 0 && !f->options.raw) {
            printf("\n");
        }
        if (show(f, r->svids[i], now_s, &until_s, err) == -1) {
            return -1;
        }
        if (i == 0) {
            f->renew_s = now_s + (until_s > now_s + 1 ? (until_s - now_s) / 2 : 1);
        }
    }
    (void)fflush(stdout);
    return f->options.write_dir != NULL ? write_file(f, r->svids[0]->svid, err) : 0;
}

static int on_message(void *arg, struct str message, struct err *err)
{
    Workload__JWTSVIDResponse *r =
        workload__jwtsvidresponse__unpack(NULL, message.n, (const uint8_t *)message.p);
    if (r == NULL) {
        return err_set(err, ERR_PROTOCOL, "the agent sent what is no JWTSVIDResponse");
    }
    int rc = take(arg, r, err);
    workload__jwtsvidresponse__free_unpacked(r, NULL);
    return rc;
}

static int fetch_once(struct fetch *f, struct err *err)
{
    const struct role_svid_jwt_options *o = &f->options;
    char *audiences[ROLE_AUDIENCES_MAX];
    Workload__JWTSVIDRequest r;
    workload__jwtsvidrequest__init(&r);
    for (size_t i = 0; i < o->n_audiences; i++) {
        audiences[i] = (char *)(uintptr_t)o->audiences[i]; /* packing changes none of it */
    }
    r.n_audience = o->n_audiences;
    r.audience = audiences;
    r.spiffe_id = (char *)(uintptr_t)(o->spiffe_id != NULL ? o->spiffe_id : "");
    size_t n = workload__jwtsvidrequest__get_packed_size(&r);
    mem_autofree uint8_t *packed = mem_must_calloc(1, n + 1);
    (void)workload__jwtsvidrequest__pack(&r, packed);
    const struct role_workload what = {.socket = o->socket,
                                       .method = PROTO_FETCH_JWT_SVID,
                                       .message = {(const char *)packed, n},
                                       .timeout_s = o->timeout_s,
                                       .on_message = on_message,
                                       .arg = f};
    return role_workload_ask(&what, err);
}

/* Until then, or a signal: true. */
static bool wait_until(int64_t at_s, const sigset_t *ends)
{
    int64_t left_s = at_s - os_wall_s();
    const struct timespec t = {.tv_sec = left_s > 0 ? left_s : 0};
    return sigtimedwait(ends, NULL, &t) > 0;
}

static int watch(struct fetch *f)
{
    sigset_t ends;
    role_end_signals(&ends);
    (void)pthread_sigmask(SIG_BLOCK, &ends, NULL);
    for (;;) {
        struct err err = ERR_INIT;
        int rc = fetch_once(f, &err);
        if (rc == 1) {
            return 0;
        }
        if (rc == -1) {
            (void)role_say("svid", &err, 1);
            f->renew_s = os_wall_s() + RETRY_S;
        }
        if (wait_until(f->renew_s, &ends)) {
            return 0;
        }
        if (!f->options.raw) {
            printf("\n");
        }
    }
}

int role_svid_jwt(const struct role_svid_jwt_options *options)
{
    struct fetch f = {.options = *options};
    struct err err = ERR_INIT;
    jwt_init();
    if (options->watch) {
        return watch(&f);
    }
    return fetch_once(&f, &err) == 0 ? 0 : role_say("svid", &err, 1);
}
