/* svid validate: whether a token is good, by an agent's word or, offline, by a key set. */
#include "role_options.h"
#include "roles_priv.h"

#include <postern/jwt.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proto.h>
#include <postern/spiffe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEFAULT_TIMEOUT_S = 10 };

struct validate {
    const char *token, *audience, *socket, *bundle, *trust_domain;
    uint64_t timeout_s;
};

static const struct role_option OPTIONS[] = {
    ROLE_TEXT("--audience", "AUDIENCE", struct validate, audience, "whom it has to be for"),
    ROLE_SOCKET(struct validate, socket),
    ROLE_TEXT("--bundle", "FILE", struct validate, bundle, "no agent: by this JWK set"),
    ROLE_TEXT("--trust-domain", "NAME", struct validate, trust_domain,
              "whose that set is (default: the token's own, whatever that is)"),
    ROLE_NUMBER("--timeout", "SECONDS", struct validate, timeout_s, 3600,
                "how long to wait (default 10)"),
};
static const struct role_use USE = {
    .command = "svid validate",
    .uses = ROLE_USES("svid validate TOKEN --audience AUDIENCE [OPTIONS]"),
    .about = "Says whether a JWT-SVID is good, and what it says. TOKEN - reads it from standard "
             "input, so\n"
             "that it does not show among the processes.\n",
    ROLE_OPTIONS(OPTIONS),
    .max_words = 1,
};

void role_print_token(const struct jwt_token *t)
{
    char *claims = jwt_claims_text(t);
    role_print_text("identity", t->spiffe_id);
    for (size_t i = 0; i < t->n_audiences; i++) {
        role_print_text("audience", t->audiences[i]);
    }
    role_print_times(t->issued_s, t->expires_s, os_wall_s());
    printf("key           %s ", jwt_alg_name(t->alg));
    role_put_text(t->kid != NULL ? t->kid : "(none named)");
    printf("claims        %s\n", claims != NULL ? claims : ""); /* ASCII, escaped */
    free(claims);
}

/* --- offline ---------------------------------------------------------------------------------- */
static int by_bundle(const struct validate *v, struct err *err)
{
    mem_auto(jwt_keys_free) struct jwt_keys *keys = NULL;
    mem_auto(jwt_token_free) struct jwt_token *read = NULL;
    mem_auto(jwt_token_free) struct jwt_token *t = NULL;
    mem_autofree char *text = NULL;
    size_t n = 0;
    struct spiffe_id id;
    struct jwt_bundle bundle;
    if (os_read_file(v->bundle, JWT_KEYS_BYTES, false, &text, &n, err) == -1 ||
        jwt_read(str_of(v->token), &read, err) == -1 ||
        spiffe_id_parse(str_of(read->spiffe_id), &id, err) == -1) {
        return -1;
    }
    if (jwt_keys_parse((struct str){text, n}, false, &keys, err) == -1) {
        return err_where(err, "%s", v->bundle);
    }
    bundle.trust_domain = v->trust_domain != NULL ? str_of(v->trust_domain) : id.trust_domain;
    bundle.keys = keys;
    if (jwt_verify(str_of(v->token), &bundle, 1, str_of(v->audience), os_wall_s(), &t, err) == -1) {
        return -1;
    }
    printf("good          by %s, as the keys of %.*s%s\n", v->bundle, STR_ARG(bundle.trust_domain),
           v->trust_domain != NULL ? "" : ", the token's own trust domain");
    role_print_token(t);
    return 0;
}

/* --- by an agent ------------------------------------------------------------------------------ */
static int on_message(void *arg, struct str message, struct err *err)
{
    const struct validate *v = arg;
    mem_auto(jwt_token_free) struct jwt_token *t = NULL;
    Workload__ValidateJWTSVIDResponse *r =
        workload__validate_jwtsvidresponse__unpack(NULL, message.n, (const uint8_t *)message.p);
    if (r == NULL) {
        return err_set(err, ERR_PROTOCOL, "the agent sent what is no ValidateJWTSVIDResponse");
    }
    /* The claims are the token's: shown from there, since Struct is not unpacked here. */
    int rc = jwt_read(str_of(v->token), &t, err);
    if (rc == 0 && strcmp(t->spiffe_id, r->spiffe_id) != 0) {
        rc = err_set(err, ERR_PROTOCOL, "the agent says that it is of another identity");
    }
    if (rc == 0) {
        printf("good          says the agent\n");
        role_print_token(t);
    }
    workload__validate_jwtsvidresponse__free_unpacked(r, NULL);
    return rc;
}

static int by_agent(struct validate *v, struct err *err)
{
    Workload__ValidateJWTSVIDRequest r;
    workload__validate_jwtsvidrequest__init(&r);
    r.audience = (char *)(uintptr_t)v->audience; /* packing changes none of it */
    r.svid = (char *)(uintptr_t)v->token;
    size_t n = workload__validate_jwtsvidrequest__get_packed_size(&r);
    mem_autofree uint8_t *packed = mem_must_calloc(1, n + 1);
    (void)workload__validate_jwtsvidrequest__pack(&r, packed);
    const struct role_workload what = {.socket = v->socket,
                                       .method = PROTO_VALIDATE_JWT_SVID,
                                       .message = {(const char *)packed, n},
                                       .timeout_s = v->timeout_s,
                                       .on_message = on_message,
                                       .arg = v};
    return role_workload_ask(&what, err);
}

/* --- the command line ------------------------------------------------------------------------- */
/* One line of standard input. */
static char *read_token(void)
{
    char *text = mem_must_calloc(JWT_TOKEN_MAX + 2, 1);
    size_t n = fread(text, 1, JWT_TOKEN_MAX + 1, stdin);
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r' || text[n - 1] == ' ')) {
        n--;
        text[n] = '\0';
    }
    return text;
}

int role_svid_validate(int argc, char **argv)
{
    struct validate v = {.timeout_s = DEFAULT_TIMEOUT_S};
    struct err err = ERR_INIT;
    mem_autofree char *from_stdin = NULL;
    int status;
    if (!role_options(&USE, &argc, argv, &v, &status)) {
        return status;
    }
    if (argc != 2 || v.audience == NULL || (v.trust_domain != NULL && v.bundle == NULL)) {
        return role_misuse(&USE, "expected a token and --audience; --trust-domain is of --bundle");
    }
    v.token = argv[1];
    jwt_init();
    if (strcmp(v.token, "-") == 0) {
        from_stdin = read_token();
        v.token = from_stdin;
    }
    int rc = v.bundle != NULL ? by_bundle(&v, &err) : by_agent(&v, &err);
    (void)fflush(stdout);
    return rc == 0 ? 0 : role_say("svid", &err, 1);
}
