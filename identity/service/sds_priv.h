/* What the files of SDS share: what a caller asks for, and how that is answered. */
#ifndef POSTERN_SDS_PRIV_H
#define POSTERN_SDS_PRIV_H

#include "service_priv.h"
#include <postern/proto.h>

#define SDS_SECRET_TYPE "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

enum { SDS_NAMES_MAX = 4096, SDS_NONCE_BYTES = 8 };

/* The subscription of a stream, or a single request. */
struct sds {
    char **names; /* owned; sorted, each once; none: everything under its own name */
    bool *met;    /* owned: n_names, for choosing */
    size_t n_names;
    bool spiffe_validator; /* the form of bundles: else trusted_ca */
    bool streaming;        /* version and nonce are told */
    uint64_t version;
    char nonce[2 * SDS_NONCE_BYTES + 1]; /* of what was sent last; empty: nothing yet */
    unsigned n_rejected;
};

bool service_sds_wants(const struct sds *d, const char *name);

/* --- sds_node.c: pure --- */
/* Whether the Struct has `key`, a boolean that is true (or the word "true"). Looks no deeper than
 * that. */
bool service_sds_metadata_flag(struct str metadata, struct str key);
/* The form of bundles that this Envoy takes. */
bool service_sds_takes_spiffe_validator(const Sds__Node *node);

/* --- sds_pack.c --- */
/* PEM of one DER element after another. */
size_t service_pem_size(const char *label, struct str ders);
/* Writes exactly so much; returns the end. */
char *service_pem_put(char *out, const char *label, struct str ders);
enum grpc_send service_sds_send(struct grpc_call *call, struct service *s,
                                const struct service_job *job, struct sds *d);

#endif
