/*
 * Certificates as bytes, and their times as numbers. Small on purpose: the keeper links it.
 */
#include <postern/x509.h>

#include "x509_priv.h"
#include <openssl/err.h>
#include <stdlib.h>
#include <time.h>

int x509_err_crypto(struct err *err, const char *what)
{
    char text[160] = "no reason given";
    unsigned long code = ERR_peek_last_error();
    if (code != 0) {
        ERR_error_string_n(code, text, sizeof(text));
    }
    ERR_clear_error();
    return err_set(err, ERR_CRYPTO, "%s: %s", what, text);
}

void x509_stack_free(STACK_OF(X509) * certs)
{
    sk_X509_pop_free(certs, X509_free);
}

STACK_OF(X509) * x509_ders_parse(struct str ders, int min, int max, struct err *err)
{
    const unsigned char *p = (const unsigned char *)ders.p;
    size_t left = ders.n;
    STACK_OF(X509) *certs = sk_X509_new_null();
    if (certs == NULL) {
        x509_err_crypto(err, "certificates");
        return NULL;
    }
    while (left > 0) {
        const unsigned char *next = p;
        if (sk_X509_num(certs) == max) {
            err_set(err, ERR_LIMIT, "more than %d certificates", max);
            goto fail;
        }
        ERR_clear_error();
        X509 *cert = d2i_X509(NULL, &next, left > INT32_MAX ? INT32_MAX : (long)left);
        if (cert == NULL) {
            char what[80];
            snprintf(what, sizeof(what), "certificate %d is not DER (byte %zu of %zu)",
                     sk_X509_num(certs) + 1, ders.n - left, ders.n);
            x509_err_crypto(err, what);
            goto fail;
        }
        if (sk_X509_push(certs, cert) == 0) {
            X509_free(cert);
            x509_err_crypto(err, "certificates");
            goto fail;
        }
        left -= (size_t)(next - p);
        p = next;
    }
    if (sk_X509_num(certs) < min) {
        err_set(err, ERR_PROTOCOL, "no certificate");
        goto fail;
    }
    return certs;
fail:
    x509_stack_free(certs);
    return NULL;
}

STACK_OF(X509) * x509_chain_from_der(struct str ders, struct err *err)
{
    return x509_ders_parse(ders, 1, X509_CHAIN_MAX, err);
}

int x509_to_der(X509 *cert, uint8_t **ret, size_t *ret_len, struct err *err)
{
    ERR_clear_error();
    int len = i2d_X509(cert, NULL);
    if (len <= 0) {
        return x509_err_crypto(err, "certificate to DER");
    }
    uint8_t *der = mem_must_calloc(1, (size_t)len);
    unsigned char *p = der;
    if (i2d_X509(cert, &p) != len) {
        free(der);
        return x509_err_crypto(err, "certificate to DER");
    }
    *ret = der;
    *ret_len = (size_t)len;
    return 0;
}

/* Days since 1970-01-01 of a civil date: timegm() would take the C library's time zone lock. */
static int64_t days_of(int64_t year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = y / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

int64_t x509_time_s(const ASN1_TIME *t)
{
    struct tm tm = {0};
    if (t == NULL || ASN1_TIME_to_tm(t, &tm) != 1) {
        ERR_clear_error();
        return INT64_MIN; /* a time that nobody can read is long past */
    }
    return days_of(tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday) * 86400 + tm.tm_hour * 3600 +
           tm.tm_min * 60 + tm.tm_sec;
}

int64_t x509_not_after_s(X509 *cert)
{
    return x509_time_s(X509_get0_notAfter(cert));
}

int64_t x509_not_before_s(X509 *cert)
{
    int64_t begin_s = x509_time_s(X509_get0_notBefore(cert));

    return begin_s != INT64_MIN ? begin_s : INT64_MAX; /* one that nobody can read never begins */
}
