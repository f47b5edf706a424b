/* svid show FILE: what a file with certificates, a token or a key set says. Nothing is judged, and
 * no key is shown. */
#include "role_options.h"
#include "roles_priv.h"

#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <postern/jwt.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX = 1 << 20 };

/* --- certificates ----------------------------------------------------------------------------- */
static int64_t time_s(const ASN1_TIME *t)
{
    struct tm tm;
    return ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static void show_names(X509 *cert)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_DNS && name->type != GEN_URI) {
            continue;
        }
        const ASN1_STRING *s = name->d.ia5;
        mem_autofree char *text =
            mem_must_strndup((const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
        role_print_text(name->type == GEN_DNS ? "DNS name" : "URI", text);
    }
    GENERAL_NAMES_free(names);
}

static void show_key(EVP_PKEY *key)
{
    char group[32] = "";
    if (key == NULL) {
        printf("key           not readable\n");
        return;
    }
    if (EVP_PKEY_get_base_id(key) == EVP_PKEY_EC) {
        (void)EVP_PKEY_get_group_name(key, group, sizeof(group) - 2, NULL);
        group[strlen(group)] = ' '; /* the rest is zero */
    }
    printf("key           %s %s%d bits\n", EVP_PKEY_get0_type_name(key), group,
           EVP_PKEY_get_bits(key));
}

void role_print_authority(X509 *cert)
{
    char id[SPIFFE_ID_MAX + 1];
    char name[256];
    struct err err = ERR_INIT;
    BIGNUM *serial = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
    char *hex = serial != NULL ? BN_bn2hex(serial) : NULL;
    if (x509_get_spiffe_id(cert, id, &err) == 0) {
        printf("identity      %s\n", id);
    } else {
        role_print_text("identity", err.what);
    }
    show_names(cert);
    printf("kind          %s\n", X509_check_ca(cert) != 0 ? "authority" : "leaf");
    for (char *p = hex; p != NULL && *p != '\0'; p++) {
        *p |= 0x20;
    }
    printf("serial        %s\n", hex != NULL ? hex : "");
    role_print_times(time_s(X509_get0_notBefore(cert)), time_s(X509_get0_notAfter(cert)),
                     os_wall_s());
    show_key(X509_get0_pubkey(cert));
    role_print_text("subject", X509_NAME_oneline(X509_get_subject_name(cert), name, sizeof(name)));
    role_print_text("issuer", X509_NAME_oneline(X509_get_issuer_name(cert), name, sizeof(name)));
    OPENSSL_free(hex);
    BN_free(serial);
}

/* PEM blocks in their order; keys are named and not shown. */
static int show_pem(const char *text, size_t n)
{
    BIO *bio = BIO_new_mem_buf(text, (int)n);
    char *name = NULL, *header = NULL;
    unsigned char *data = NULL;
    long len;
    int shown = 0;
    while (PEM_read_bio(bio, &name, &header, &data, &len) == 1) {
        const unsigned char *p = data;
        X509 *cert = strcmp(name, "CERTIFICATE") == 0 ? d2i_X509(NULL, &p, len) : NULL;
        printf("%s", shown++ > 0 ? "\n" : "");
        if (cert != NULL) {
            role_print_authority(cert);
        } else {
            role_print_text("kind", name);
        }
        X509_free(cert);
        OPENSSL_free(name);
        OPENSSL_free(header);
        OPENSSL_clear_free(data, (size_t)len);
    }
    BIO_free(bio);
    ERR_clear_error();
    return shown > 0 ? 0 : -1;
}

static int show_der(const char *data, size_t n)
{
    STACK_OF(X509) *certs = x509_chain_from_der((struct str){data, n}, NULL);
    for (int i = 0; i < sk_X509_num(certs); i++) {
        printf("%s", i > 0 ? "\n" : "");
        role_print_authority(sk_X509_value(certs, i));
    }
    int rc = sk_X509_num(certs) > 0 ? 0 : -1;
    sk_X509_pop_free(certs, X509_free);
    return rc;
}

/* --- tokens and key sets ---------------------------------------------------------------------- */
static int show_token(struct str text, struct err *err)
{
    mem_auto(jwt_token_free) struct jwt_token *t = NULL;
    if (jwt_read(text, &t, err) == -1) {
        return -1;
    }
    role_print_token(t);
    printf("signature     not checked: `postern svid validate` does that\n");
    return 0;
}

static int show_set(struct str text, struct err *err)
{
    mem_auto(jwt_keys_free) struct jwt_keys *keys = NULL;
    if (jwt_keys_parse(text, false, &keys, err) == -1) {
        return -1;
    }
    for (size_t i = 0; i < jwt_keys_count(keys); i++) {
        printf("JWT key       %s ", jwt_keys_kind(keys, i));
        role_put_text(jwt_keys_kid(keys, i));
    }
    printf("keys          %zu for tokens\n", jwt_keys_count(keys));
    return 0;
}

/* --- which of them ---------------------------------------------------------------------------- */
static int show(char *data, size_t n, struct err *err)
{
    while (n > 0 && (data[n - 1] == '\n' || data[n - 1] == '\r' || data[n - 1] == ' ')) {
        n--;
    }
    if (n == 0) {
        return err_set(err, ERR_CONFIG, "the file is empty");
    }
    if (memmem(data, n, "-----BEGIN ", 11) != NULL && show_pem(data, n) == 0) {
        return 0;
    }
    if (data[0] == '{') {
        return show_set((struct str){data, n}, err);
    }
    if (data[0] == 0x30 && show_der(data, n) == 0) {
        return 0;
    }
    if (memchr(data, '.', n) != NULL) {
        return show_token((struct str){data, n}, err);
    }
    err_set(err, ERR_CONFIG, "nothing in it that is known");
    return err_expected(err, "certificates (PEM or DER), a JWT-SVID, or a JWK set");
}

static const struct role_use USE = {
    .command = "svid show",
    .uses = ROLE_USES("svid show FILE"),
    .max_words = 1,
};

int role_svid_show(int argc, char **argv)
{
    struct err err = ERR_INIT;
    char *data = NULL;
    size_t n = 0;
    int status;
    if (!role_options(&USE, &argc, argv, NULL, &status)) {
        return status;
    }
    if (argc != 2) {
        return role_misuse(&USE, "expected a file");
    }
    jwt_init();
    if (os_read_file(argv[1], FILE_MAX, false, &data, &n, &err) == -1) {
        return role_say("svid", &err, 1);
    }
    int rc = show(data, n, &err);
    mem_wipe(data, n);
    free(data);
    if (rc == -1) {
        err_where(&err, "%s", argv[1]);
    }
    return rc == 0 ? 0 : role_say("svid", &err, 1);
}
