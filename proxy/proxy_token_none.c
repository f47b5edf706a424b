/* A build without PKCS#11: tokens are refused by name. */
#include "proxy_priv.h"

int proxy_token_away(struct proxy *p, const struct conf_credential *c, struct credential_away *ret,
                     struct err *err)
{
    (void)p;
    (void)ret;
    err_set(err, ERR_UNSUPPORTED, "this build has no PKCS#11");
    err_where(err, "%s", c->token.module);
    return err_advise(err, "use a build with it, or a key in a file");
}

void proxy_token_stop(struct proxy *p)
{
    (void)p;
}
