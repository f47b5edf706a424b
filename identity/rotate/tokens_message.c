/* tokens_message: what an agent says of tokens. Pure functions over bytes; whoever a token is shown
 * to judges its signature, but it has to be one, for whom and for what it was asked. */
#include "rotate_priv.h"

#include <postern/jwt.h>
#include <postern/mem.h>
#include <postern/proto.h>
#include <stdlib.h>
#include <string.h>

static void token_response_free(Workload__JWTSVIDResponse *m)
{
    workload__jwtsvidresponse__free_unpacked(m, proto_wiping());
}

MEM_DEFINE_CLEANUP(Workload__JWTSVIDResponse, token_response_free)

/* --- a token -----------------------------------------------------------------------------------
 */
static bool has_audience(const struct jwt_token *token, const char *audience)
{
    for (size_t i = 0; i < token->n_audiences; i++) {
        if (strcmp(token->audiences[i], audience) == 0) {
            return true;
        }
    }
    return false;
}

static int check_token(const struct jwt_token *token, const char *wanted,
                       const struct conf_strings *audience, int64_t now_s, struct err *err)
{
    if (wanted != NULL && strcmp(token->spiffe_id, wanted) != 0) {
        return err_set(err, ERR_PROTOCOL, "the agent sent a token of '%.200s' instead of '%.150s'",
                       token->spiffe_id, wanted);
    }
    for (size_t i = 0; i < audience->n; i++) {
        if (!has_audience(token, audience->items[i])) {
            return err_set(err, ERR_PROTOCOL, "the agent sent a token that is not for '%.200s'",
                           audience->items[i]);
        }
    }
    if (token->expires_s <= now_s) {
        err_set(err, ERR_PROTOCOL, "the agent sent a token that has ended");
        return err_advise(err, "compare this host's clock with the agent's");
    }
    return 0;
}

int rotate_read_token(struct str message, const char *wanted, const struct conf_strings *audience,
                      int64_t now_s, struct rotate_token_text *ret, struct err *err)
{
    mem_auto(token_response_free) Workload__JWTSVIDResponse *m =
        workload__jwtsvidresponse__unpack(proto_wiping(), message.n, (const uint8_t *)message.p);
    mem_auto(jwt_token_free) struct jwt_token *token = NULL;
    if (m == NULL || m->n_svids == 0) {
        return err_set(err, ERR_PROTOCOL, "JWTSVIDResponse: %s",
                       m == NULL ? "cannot be decoded" : "no token");
    }
    struct str text = str_of(m->svids[0]->svid);
    if (jwt_read(text, &token, err) == -1) {
        return err_prefix(err, "JWTSVIDResponse");
    }
    if (check_token(token, wanted, audience, now_s, err) == -1) {
        return -1;
    }
    ret->text = mem_must_strndup(text.p, text.n);
    ret->spiffe_id = mem_must_strdup(token->spiffe_id);
    ret->ends_s = token->expires_s;
    return 0;
}

void rotate_token_text_reset(struct rotate_token_text *t)
{
    if (t->text != NULL) {
        mem_wipe(t->text, strlen(t->text));
    }
    free(t->text);
    free(t->spiffe_id);
    *t = (struct rotate_token_text){0};
}

/* --- key sets ----------------------------------------------------------------------------------
 */
int rotate_read_key_sets(struct str message, struct jwt_key_sets *ret, struct err *ret_warning,
                         struct err *err)
{
    struct jwt_key_sets sets = {0};
    if (jwt_key_sets_read(message, &sets, ret_warning, err) == -1) {
        return -1;
    }
    if (sets.n == 0) {
        jwt_key_sets_reset(&sets);
        return err_set(err, ERR_PROTOCOL, "JWTBundlesResponse: no key set");
    }
    *ret = sets;
    return 0;
}
