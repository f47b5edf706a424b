/*
 * What a root's key signs: a certificate of an authority of our own trust domain, for itself (a
 * root) or for a node (an intermediate below it), for no longer than the configuration says. The
 * asker names two keys and two times; all else of the certificate is made here.
 */
#include "signer_priv.h"

#include <string.h>

enum {
    PAST_MAX_S = 3600, /* a certificate begins a little before it is made, and not long ago */
    SKEW_S = 60,
    ROOT_PATH_LEN = 1, /* root, one intermediate, leaf */
};

int signer_judge(const struct signer_rules *rules, const struct agent_msg_signer_sign *ask,
                 int64_t now_s, struct err *err)
{
    bool self = memcmp(ask->key, ask->point, AGENT_POINT_SIZE) == 0;
    bool root = ask->purpose == AGENT_SIGNER_ROOT;
    int64_t ttl_s = root ? rules->root_ttl_s : rules->node_ttl_s;

    if (ask->purpose >= AGENT_N_SIGNER_PURPOSES || self != root) {
        return err_set(err, ERR_DENIED,
                       root ? "a root signs itself"
                            : "a node's intermediate is another key's than the "
                              "root's");
    }
    if (ask->not_before_s < now_s - PAST_MAX_S || ask->not_before_s > now_s + SKEW_S) {
        return err_set(err, ERR_DENIED, "the certificate would not begin about now");
    }
    if (ask->not_after_s <= ask->not_before_s || ask->not_after_s > now_s + ttl_s + SKEW_S) {
        err_set(err, ERR_DENIED, "the certificate would live longer than it may, or not at all");
        return err_expected(err, "at most %lld s", (long long)ttl_s);
    }
    return 0;
}

int signer_certify(const struct signer_rules *rules, const struct agent_msg_signer_sign *ask,
                   int64_t now_s, const struct x509_away *away, X509 **ret, struct err *err)
{
    struct x509_away issuer = *away;
    struct x509_issue what = {.spiffe_id = str_of(rules->trust_domain_id),
                              .point = ask->point,
                              .ca = true,
                              .path_len = ask->purpose == AGENT_SIGNER_ROOT ? ROOT_PATH_LEN : 0,
                              .not_before_s = ask->not_before_s,
                              .not_after_s = ask->not_after_s};

    issuer.point = ask->key;
    if (signer_judge(rules, ask, now_s, err) == -1) {
        return -1;
    }
    return x509_issue_away(&what, &issuer, ret, err);
}
