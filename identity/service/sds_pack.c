/*
 * Secrets for Envoy: PEM in messages in messages. All of it is laid into one region of secret
 * memory, whose size is reckoned before, since keys are in it; it is wiped whole.
 */
#include "sds_priv.h"

#include <openssl/evp.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    LINE_BYTES = 48, /* of DER, in a PEM line of 64 */
    EXTRA_NAMES = 3, /* `default`, and bundles under other names */
    MESSAGE_SLACK = 256,
};

#define VALIDATOR_NAME "envoy.tls.cert_validator.spiffe"
#define VALIDATOR_TYPE                                                                             \
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
#define CERTIFICATE "CERTIFICATE"
#define PRIVATE_KEY "PRIVATE KEY"

/* --- PEM -------------------------------------------------------------------------------------- */

/* The length of the first element; all of the rest if it is none, which nobody hands in. */
static size_t der_size(struct str der)
{
    const uint8_t *p = (const uint8_t *)der.p;
    size_t head = 2;
    size_t n = 0;
    if (der.n < 2) {
        return der.n;
    }
    if (p[1] < 0x80) {
        n = p[1];
    } else {
        size_t bytes = p[1] & 0x7f;
        head += bytes;
        if (bytes > 3 || der.n < head) {
            return der.n;
        }
        for (size_t i = 0; i < bytes; i++) {
            n = n << 8 | p[2 + i];
        }
    }
    return n > der.n - head ? der.n : head + n;
}

static struct str first_of(struct str *rest)
{
    size_t n = der_size(*rest);
    struct str first = {rest->p, n};
    *rest = (struct str){rest->p + n, rest->n - n};
    return first;
}

size_t service_pem_size(const char *label, struct str ders)
{
    size_t frame = 2 * strlen(label) + sizeof("-----BEGIN -----\n-----END -----\n") - 1;
    size_t size = 0;
    while (ders.n > 0) {
        size_t n = first_of(&ders).n;
        size += frame + (n + 2) / 3 * 4 + (n + LINE_BYTES - 1) / LINE_BYTES;
    }
    return size;
}

static char *put(char *out, const char *text)
{
    size_t n = strlen(text);
    memcpy(out, text, n);
    return out + n;
}

char *service_pem_put(char *out, const char *label, struct str ders)
{
    while (ders.n > 0) {
        struct str der = first_of(&ders);
        out = put(put(put(out, "-----BEGIN "), label), "-----\n");
        while (der.n > 0) {
            size_t n = der.n < LINE_BYTES ? der.n : LINE_BYTES;
            unsigned char line[LINE_BYTES / 3 * 4 + 1];
            int len = EVP_EncodeBlock(line, (const unsigned char *)der.p, (int)n);
            memcpy(out, line, (size_t)len);
            mem_wipe(line, sizeof(line));
            out += len;
            *out++ = '\n';
            der = (struct str){der.p + n, der.n - n};
        }
        out = put(put(put(out, "-----END "), label), "-----\n");
    }
    return out;
}

/* --- the region ------------------------------------------------------------------------------- */

struct region {
    uint8_t *bytes; /* secret memory */
    size_t n, cap;
    Sds__Any *anys;      /* owned: what has been made */
    Sds__Any **pointers; /* owned */
    size_t n_anys;
};

static uint8_t *region_take(struct region *r, size_t n)
{
    POSTERN_ASSERT(n <= r->cap - r->n);
    uint8_t *p = r->bytes + r->n;
    r->n += n;
    return p;
}

static ProtobufCBinaryData region_pem(struct region *r, const char *label, struct str ders)
{
    size_t n = service_pem_size(label, ders);
    char *p = (char *)region_take(r, n);
    POSTERN_ASSERT(service_pem_put(p, label, ders) == p + n);
    return (ProtobufCBinaryData){n, (uint8_t *)p};
}

static ProtobufCBinaryData region_pack(struct region *r, const ProtobufCMessage *m)
{
    size_t n = protobuf_c_message_get_packed_size(m);
    uint8_t *p = region_take(r, n);
    POSTERN_ASSERT(protobuf_c_message_pack(m, p) == n);
    return (ProtobufCBinaryData){n, p};
}

static char *text_of(const char *p)
{
    return (char *)(uintptr_t)p; /* protobuf-c's strings are not const; packing writes to none */
}

static void add_secret(struct region *r, const Sds__Secret *secret)
{
    Sds__Any *any = &r->anys[r->n_anys];
    sds__any__init(any);
    any->type_url = text_of(SDS_SECRET_TYPE);
    any->value = region_pack(r, &secret->base);
    r->pointers[r->n_anys++] = any;
}

/* --- secrets ---------------------------------------------------------------------------------- */

static void add_certificate(struct region *r, const char *name, ProtobufCBinaryData chain,
                            ProtobufCBinaryData key)
{
    Sds__DataSource chain_source;
    Sds__DataSource key_source;
    Sds__TlsCertificate cert;
    Sds__Secret secret;
    sds__data_source__init(&chain_source);
    sds__data_source__init(&key_source);
    sds__tls_certificate__init(&cert);
    sds__secret__init(&secret);
    chain_source.inline_bytes = chain;
    key_source.inline_bytes = key;
    cert.certificate_chain = &chain_source;
    cert.private_key = &key_source;
    secret.name = text_of(name);
    secret.tls_certificate = &cert;
    add_secret(r, &secret);
}

static void add_identity(struct region *r, const struct sds *d, const struct service_identity *id,
                         bool is_default)
{
    ProtobufCBinaryData key_pem =
        region_pem(r, PRIVATE_KEY, (struct str){(const char *)id->pkcs8, X509_PKCS8_LEN});
    ProtobufCBinaryData chain_pem =
        region_pem(r, CERTIFICATE, (struct str){(const char *)id->chain, id->n_chain});
    if (d->n_names == 0 || service_sds_wants(d, id->spiffe_id)) {
        add_certificate(r, id->spiffe_id, chain_pem, key_pem);
    }
    if (is_default && service_sds_wants(d, "default")) {
        add_certificate(r, "default", chain_pem, key_pem);
    }
}

static void add_bundle(struct region *r, const struct service *s, const struct sds *d,
                       const char *name, ProtobufCBinaryData roots)
{
    Sds__DataSource source;
    Sds__CertificateValidationContext context;
    Sds__Secret secret;
    Sds__TrustDomain domain;
    Sds__TrustDomain *domains[] = {&domain};
    Sds__SPIFFECertValidatorConfig config;
    Sds__TypedExtensionConfig extension;
    Sds__Any any;
    sds__data_source__init(&source);
    sds__certificate_validation_context__init(&context);
    sds__secret__init(&secret);
    source.inline_bytes = roots;
    if (d->spiffe_validator) {
        sds__trust_domain__init(&domain);
        sds__spiffecert_validator_config__init(&config);
        sds__typed_extension_config__init(&extension);
        sds__any__init(&any);
        domain.name = s->own_domain_id + sizeof("spiffe://") - 1;
        domain.trust_bundle = &source;
        config.trust_domains = domains;
        config.n_trust_domains = 1;
        any.type_url = text_of(VALIDATOR_TYPE);
        any.value = region_pack(r, &config.base);
        extension.name = text_of(VALIDATOR_NAME);
        extension.typed_config = &any;
        context.custom_validator_config = &extension;
    } else {
        context.trusted_ca = &source;
    }
    secret.name = text_of(name);
    secret.validation_context = &context;
    add_secret(r, &secret);
}

static void add_bundles(struct region *r, const struct service *s, const struct sds *d)
{
    const char *const names[] = {s->own_domain_id, "ROOTCA", "ALL"};
    struct str roots_der = {(const char *)s->bundle, s->n_bundle};
    ProtobufCBinaryData roots = region_pem(r, CERTIFICATE, roots_der);
    for (size_t i = 0; i < 3; i++) {
        if (service_sds_wants(d, names[i]) || (i == 0 && d->n_names == 0)) {
            add_bundle(r, s, d, names[i], roots);
        }
    }
}

/* --- the answer ------------------------------------------------------------------------------- */

/* An upper bound of all that is laid into the region: each PEM as it is, in its Secret, in the
 * answer; a bundle in its validator too, and under three names. */
static size_t reckon(const struct service *s, const struct service_job *job)
{
    struct str roots = {(const char *)s->bundle, s->n_bundle};
    size_t size = 16 * (service_pem_size(CERTIFICATE, roots) + strlen(s->own_domain_id) + 1024);
    for (uint32_t i = 0; i < job->n; i++) {
        const struct service_identity *id = &job->list[i];
        if (id->wanted) {
            struct str chain = {(const char *)id->chain, id->n_chain};
            size += 5 * (service_pem_size(CERTIFICATE, chain) + strlen(id->spiffe_id) + 1024);
        }
    }
    return size;
}

static void fill(struct region *r, const struct service *s, const struct service_job *job,
                 const struct sds *d)
{
    add_bundles(r, s, d);
    for (uint32_t i = 0; i < job->n; i++) {
        if (job->list[i].wanted) {
            add_identity(r, d, &job->list[i], i == 0);
        }
    }
}

static void next_nonce(struct sds *d)
{
    uint8_t bytes[SDS_NONCE_BYTES];
    os_random(bytes, sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        (void)snprintf(d->nonce + 2 * i, 3, "%02x", bytes[i]);
    }
}

enum grpc_send service_sds_send(struct grpc_call *call, struct service *s,
                                const struct service_job *job, struct sds *d)
{
    struct region r = {.cap = reckon(s, job)};
    struct service_secret secret = {.bytes = NULL};
    enum grpc_send sent = GRPC_FULL;
    char version[24] = "";
    Sds__DiscoveryResponse response;
    r.anys = mem_must_calloc((size_t)job->n + EXTRA_NAMES + 1, sizeof(*r.anys));
    r.pointers = mem_must_calloc((size_t)job->n + EXTRA_NAMES + 1, sizeof(*r.pointers));
    if (service_secret_take(s, r.cap, &secret)) {
        r.bytes = secret.bytes;
        fill(&r, s, job, d);
        char before[sizeof(d->nonce)];
        memcpy(before, d->nonce, sizeof(before));
        sds__discovery_response__init(&response);
        if (d->streaming) {
            (void)snprintf(version, sizeof(version), "%llu", (unsigned long long)d->version + 1);
            next_nonce(d);
            response.version_info = version;
            response.nonce = d->nonce;
        }
        response.type_url = text_of(SDS_SECRET_TYPE);
        response.resources = r.pointers;
        response.n_resources = r.n_anys;
        ProtobufCBinaryData packed = region_pack(&r, &response.base);
        sent = grpc_call_send(call, packed.data, packed.len);
        if (sent == GRPC_SENT) {
            d->version++;
        } else {
            memcpy(d->nonce, before, sizeof(before));
        }
    }
    service_secret_give(s, &secret);
    free(r.anys);
    free(r.pointers);
    return sent;
}
