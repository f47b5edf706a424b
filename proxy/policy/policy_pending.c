/* What a Policy file can say and the compiled form cannot hold yet is refused as a whole: half of a
 * rule is another rule. */
#include <postern/policy.h>

#include "policy_priv.h"

static const char *pending_of_from(const struct conf_policy_from *f)
{
    for (size_t i = 0; i < f->principals.n; i++) {
        if (conf_is_glob(f->principals.items[i])) {
            return "globs";
        }
    }
    for (size_t i = 0; i < f->not_principals.n; i++) {
        if (conf_is_glob(f->not_principals.items[i])) {
            return "globs";
        }
    }
    return f->namespaces.n + f->not_namespaces.n > 0               ? "namespaces"
           : f->service_accounts.n + f->not_service_accounts.n > 0 ? "service_accounts"
           : f->claims.n + f->not_claims.n > 0                     ? "claims"
                                                                   : NULL;
}

static const char *pending_of_to(const struct conf_policy_to *t)
{
    for (size_t i = 0; i < t->paths.n; i++) {
        if (conf_is_template(t->paths.items[i])) {
            return "templates";
        }
    }
    for (size_t i = 0; i < t->not_paths.n; i++) {
        if (conf_is_template(t->not_paths.items[i])) {
            return "templates";
        }
    }
    return t->query.n + t->not_query.n > 0       ? "query"
           : t->headers.n + t->not_headers.n > 0 ? "headers"
           : t->grpc.n + t->not_grpc.n > 0       ? "grpc"
                                                 : NULL;
}

static const char *pending_of_rule(const struct conf_rule *r)
{
    const char *what = r->action == CONF_AUDIT   ? "AUDIT"
                       : r->mode == CONF_DRY_RUN ? "dry-run"
                       : r->expires_s != 0       ? "expires"
                                                 : NULL;
    for (size_t i = 0; what == NULL && i < r->target_principals.n; i++) {
        what = conf_is_glob(r->target_principals.items[i]) ? "globs" : NULL;
    }
    for (size_t i = 0; what == NULL && i < r->n_from; i++) {
        what = pending_of_from(&r->from[i]);
    }
    for (size_t i = 0; what == NULL && i < r->n_to; i++) {
        what = pending_of_to(&r->to[i]);
    }
    return what;
}

int policy_check_pending(const struct conf_policy *conf, struct err *err)
{
    for (size_t i = 0; i < conf->n_rules; i++) {
        const char *what = pending_of_rule(&conf->rules[i]);
        if (what != NULL) {
            err_set(err, ERR_CONFIG, "rule '%s' says '%s', which is not judged here",
                    conf->rules[i].name, what);
            return err_where(err, "%s:%u", conf->path != NULL ? conf->path : "policy",
                             conf->rules[i].line);
        }
    }
    return 0;
}
