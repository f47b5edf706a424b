/*
 * What an agent says, read into identities and trust. Pure functions over bytes: nothing is
 * believed that is not checked here, since any program may stand behind the socket's name.
 * Numbers of sections are those of SPIFFE_Workload_API.md.
 */
#include <postern/identity_client.h>

#include "identity_client_priv.h"
#include <postern/proto.h>
#include <stdlib.h>

static void svids_free(Workload__X509SVIDResponse *m)
{
    workload__x509_svidresponse__free_unpacked(m, proto_wiping());
}

static void bundles_free(Workload__X509BundlesResponse *m)
{
    workload__x509_bundles_response__free_unpacked(m, proto_wiping());
}

static void signed_free(Postern__V1__SignX509SVIDResponse *m)
{
    postern__v1__sign_x509_svidresponse__free_unpacked(m, proto_wiping());
}

MEM_DEFINE_CLEANUP(Workload__X509SVIDResponse, svids_free)
MEM_DEFINE_CLEANUP(Workload__X509BundlesResponse, bundles_free)
MEM_DEFINE_CLEANUP(Postern__V1__SignX509SVIDResponse, signed_free)

static struct str bytes_of(ProtobufCBinaryData data)
{
    return (struct str){(const char *)data.data, data.len};
}

static int refuse(struct err *err, const char *message, const char *why)
{
    return err_set(err, ERR_PROTOCOL, "%s: %s", message, why);
}

/* --- trust ------------------------------------------------------------------------------------ */

/* A bundle's key is "spiffe://td" (section 5.2.1). One that is given twice counts once. */
static int add_bundle(struct x509_trust *trust, struct str key, struct str ders, bool skip_known,
                      struct err *err)
{
    struct spiffe_id id;
    if (spiffe_id_parse(key, &id, err) == -1) {
        return err_prefix(err, "a bundle's name");
    }
    if (id.path.n != 0) {
        return err_set(err, ERR_PROTOCOL, "a bundle's name is a trust domain, not '%.200s'", key.p);
    }
    if (skip_known && x509_trust_root_count(trust, id.trust_domain) > 0) {
        return 0;
    }
    return x509_trust_add(trust, id.trust_domain, ders, err);
}

static struct str domain_of(const char *spiffe_id)
{
    struct spiffe_id id;
    if (spiffe_id == NULL || spiffe_id_parse(str_of(spiffe_id), &id, NULL) == -1) {
        return STR_NONE;
    }
    return id.trust_domain;
}

int client_read_bundles(struct str message, const char *own_id, struct x509_trust **ret_trust,
                        struct err *ret_warning, struct err *err)
{
    struct err warning = ERR_INIT;
    mem_auto(bundles_free) Workload__X509BundlesResponse *m =
        workload__x509_bundles_response__unpack(proto_wiping(), message.n,
                                                (const uint8_t *)message.p);
    if (m == NULL) {
        return refuse(err, "X509BundlesResponse", "cannot be decoded");
    }
    mem_auto(x509_trust_unref) struct x509_trust *trust = x509_trust_new();
    struct str own = domain_of(own_id);
    for (size_t i = 0; i < m->n_bundles; i++) {
        struct err why = ERR_INIT;
        struct str key = str_of(m->bundles[i]->key);
        if (add_bundle(trust, key, bytes_of(m->bundles[i]->value), false, &why) == 0) {
            continue;
        }
        if (own.n > 0 && str_eq(domain_of(m->bundles[i]->key), own)) {
            if (err != NULL) {
                *err = why;
            }
            return err_prefix(err, "X509BundlesResponse");
        }
        warning = why;
        err_prefix(&warning, "X509BundlesResponse: a bundle is left out");
    }
    if (x509_trust_count(trust) == 0) {
        return refuse(err, "X509BundlesResponse", "no bundle");
    }
    *ret_trust = trust;
    trust = NULL;
    *ret_warning = warning;
    return 0;
}

/* The bundles beside the SVIDs: each identity's own, then the foreign ones (section 5.2.1). */
static int trust_of_svids(const Workload__X509SVIDResponse *m, const Workload__X509SVID *chosen,
                          struct x509_trust **ret, struct err *warning, struct err *err)
{
    char key[SPIFFE_TRUST_DOMAIN_MAX + 16];
    mem_auto(x509_trust_unref) struct x509_trust *trust = x509_trust_new();
    struct str own = domain_of(chosen->spiffe_id);
    if (chosen->bundle.len == 0) {
        return refuse(err, "X509SVIDResponse", "the SVID comes without its bundle");
    }
    if (x509_trust_add(trust, own, bytes_of(chosen->bundle), err) == -1) {
        return err_prefix(err, "X509SVIDResponse");
    }
    for (size_t i = 0; i < m->n_svids; i++) {
        struct str td = domain_of(m->svids[i]->spiffe_id);
        struct err why = ERR_INIT;
        if (td.n == 0 || m->svids[i] == chosen) {
            continue;
        }
        int n = snprintf(key, sizeof(key), "spiffe://%.*s", STR_ARG(td));
        if (add_bundle(trust, (struct str){key, (size_t)n}, bytes_of(m->svids[i]->bundle), true,
                       &why) == -1) {
            *warning = why;
            err_prefix(warning, "X509SVIDResponse: a bundle is left out");
        }
    }
    for (size_t i = 0; i < m->n_federated_bundles; i++) {
        struct err why = ERR_INIT;
        if (add_bundle(trust, str_of(m->federated_bundles[i]->key),
                       bytes_of(m->federated_bundles[i]->value), true, &why) == -1) {
            *warning = why;
            err_prefix(warning, "X509SVIDResponse: a bundle is left out");
        }
    }
    *ret = trust;
    trust = NULL;
    return 0;
}

/* --- identities ------------------------------------------------------------------------------- */

/* The certificate must say what the message says (section 5.2.1: the SPIFFE ID of the SVID). */
static int make_svid(const char *spiffe_id, struct str chain, EVP_PKEY *key, struct x509_svid **ret,
                     struct err *err)
{
    mem_auto(x509_svid_free) struct x509_svid *svid = NULL;
    if (x509_svid_new(chain, key, &svid, err) == -1) {
        return -1;
    }
    if (!str_eq(str_of(svid->spiffe_id), str_of(spiffe_id))) {
        return err_set(err, ERR_PROTOCOL,
                       "the certificate is for '%.150s', the message says '%.150s'",
                       svid->spiffe_id, spiffe_id);
    }
    *ret = svid;
    svid = NULL;
    return 0;
}

static int not_offered(const Workload__X509SVIDResponse *m, const char *wanted, struct err *err)
{
    char offers[200] = "";
    size_t used = 0;
    for (size_t i = 0; i < m->n_svids && m->svids[i] != NULL && used + 4 < sizeof(offers); i++) {
        int n = snprintf(offers + used, sizeof(offers) - used, "%s%.100s", i > 0 ? ", " : "",
                         m->svids[i]->spiffe_id);
        used += n > 0 ? (size_t)n : 0;
    }
    err_set(err, ERR_DENIED, "the agent does not offer '%.200s'", wanted);
    err_expected(err, "one of: %.150s", offers);
    return err_advise(err, "see the agent's entries, or change the ID that is asked for");
}

int client_read_svids(struct str message, const char *wanted, struct x509_svid **ret_svid,
                      struct x509_trust **ret_trust, char ***ret_offered, struct err *ret_warning,
                      struct err *err)
{
    struct err warning = ERR_INIT;
    const Workload__X509SVID *chosen = NULL;
    mem_auto(svids_free) Workload__X509SVIDResponse *m =
        workload__x509_svidresponse__unpack(proto_wiping(), message.n, (const uint8_t *)message.p);
    if (m == NULL) {
        return refuse(err, "X509SVIDResponse", "cannot be decoded");
    }
    if (m->n_svids == 0) {
        return refuse(err, "X509SVIDResponse", "no SVID");
    }
    for (size_t i = 0; i < m->n_svids && chosen == NULL; i++) {
        if (wanted == NULL || strcmp(wanted, m->svids[i]->spiffe_id) == 0) {
            chosen = m->svids[i];
        }
    }
    if (chosen == NULL) {
        return not_offered(m, wanted, err);
    }
    mem_auto(EVP_PKEY_free) EVP_PKEY *key =
        x509_key_from_pkcs8(bytes_of(chosen->x509_svid_key), err);
    mem_auto(x509_svid_free) struct x509_svid *svid = NULL;
    if (key == NULL ||
        make_svid(chosen->spiffe_id, bytes_of(chosen->x509_svid), key, &svid, err) == -1) {
        return err_prefix(err, "X509SVIDResponse");
    }
    if (trust_of_svids(m, chosen, ret_trust, &warning, err) == -1) {
        return -1;
    }
    char **offered = mem_must_calloc(m->n_svids + 1, sizeof(*offered));
    for (size_t i = 0; i < m->n_svids; i++) {
        offered[i] = mem_must_strdup(m->svids[i]->spiffe_id);
    }
    *ret_offered = offered;
    *ret_svid = svid;
    svid = NULL;
    *ret_warning = warning;
    return 0;
}

/* --- requests to sign ------------------------------------------------------------------------- */

int client_read_signed(struct str message, const char *wanted, EVP_PKEY *key,
                       struct x509_svid **ret_svid, struct err *err)
{
    mem_auto(signed_free) Postern__V1__SignX509SVIDResponse *m =
        postern__v1__sign_x509_svidresponse__unpack(proto_wiping(), message.n,
                                                    (const uint8_t *)message.p);
    if (m == NULL) {
        return refuse(err, "SignX509SVIDResponse", "cannot be decoded");
    }
    if (wanted != NULL && strcmp(wanted, m->spiffe_id) != 0) {
        return err_set(err, ERR_PROTOCOL, "SignX509SVIDResponse: '%.150s' instead of '%.150s'",
                       m->spiffe_id, wanted);
    }
    if (make_svid(m->spiffe_id, bytes_of(m->x509_svid), key, ret_svid, err) == -1) {
        return err_prefix(err, "SignX509SVIDResponse");
    }
    return 0;
}

void client_write_sign(const char *wanted, struct str csr, uint8_t **ret, size_t *ret_len)
{
    mem_autofree char *id = mem_must_strdup(wanted != NULL ? wanted : "");
    Postern__V1__SignX509SVIDRequest request;
    postern__v1__sign_x509_svidrequest__init(&request);
    request.csr = (ProtobufCBinaryData){.len = csr.n, .data = (uint8_t *)(uintptr_t)csr.p};
    request.spiffe_id = id;
    size_t len = postern__v1__sign_x509_svidrequest__get_packed_size(&request);
    uint8_t *message = mem_must_calloc(1, len > 0 ? len : 1);
    postern__v1__sign_x509_svidrequest__pack(&request, message);
    *ret = message;
    *ret_len = len;
}
