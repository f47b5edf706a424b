/* The module, the token of that label, and a session that is logged in. */
#include "token_priv.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS_MAX = 64 };

/* --- errors ----------------------------------------------------------------------------------- */
static const char *rv_name(CK_RV rv)
{
    static const struct {
        CK_RV rv;
        const char *name;
    } NAMES[] = {
        {CKR_ARGUMENTS_BAD, "CKR_ARGUMENTS_BAD"},
        {CKR_ATTRIBUTE_READ_ONLY, "CKR_ATTRIBUTE_READ_ONLY"},
        {CKR_CRYPTOKI_NOT_INITIALIZED, "CKR_CRYPTOKI_NOT_INITIALIZED"},
        {CKR_DEVICE_ERROR, "CKR_DEVICE_ERROR"},
        {CKR_DEVICE_MEMORY, "CKR_DEVICE_MEMORY"},
        {CKR_DEVICE_REMOVED, "CKR_DEVICE_REMOVED"},
        {CKR_FUNCTION_FAILED, "CKR_FUNCTION_FAILED"},
        {CKR_FUNCTION_NOT_SUPPORTED, "CKR_FUNCTION_NOT_SUPPORTED"},
        {CKR_GENERAL_ERROR, "CKR_GENERAL_ERROR"},
        {CKR_HOST_MEMORY, "CKR_HOST_MEMORY"},
        {CKR_KEY_FUNCTION_NOT_PERMITTED, "CKR_KEY_FUNCTION_NOT_PERMITTED"},
        {CKR_MECHANISM_INVALID, "CKR_MECHANISM_INVALID"},
        {CKR_PIN_EXPIRED, "CKR_PIN_EXPIRED"},
        {CKR_PIN_INCORRECT, "CKR_PIN_INCORRECT"},
        {CKR_PIN_INVALID, "CKR_PIN_INVALID"},
        {CKR_PIN_LEN_RANGE, "CKR_PIN_LEN_RANGE"},
        {CKR_PIN_LOCKED, "CKR_PIN_LOCKED"},
        {CKR_SESSION_CLOSED, "CKR_SESSION_CLOSED"},
        {CKR_SESSION_HANDLE_INVALID, "CKR_SESSION_HANDLE_INVALID"},
        {CKR_SLOT_ID_INVALID, "CKR_SLOT_ID_INVALID"},
        {CKR_TEMPLATE_INCONSISTENT, "CKR_TEMPLATE_INCONSISTENT"},
        {CKR_TOKEN_NOT_PRESENT, "CKR_TOKEN_NOT_PRESENT"},
        {CKR_TOKEN_WRITE_PROTECTED, "CKR_TOKEN_WRITE_PROTECTED"},
        {CKR_USER_NOT_LOGGED_IN, "CKR_USER_NOT_LOGGED_IN"},
        {CKR_USER_PIN_NOT_INITIALIZED, "CKR_USER_PIN_NOT_INITIALIZED"},
    };

    for (size_t i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++) {
        if (NAMES[i].rv == rv) {
            return NAMES[i].name;
        }
    }
    return NULL;
}

int signer_token_failed(const struct signer_token *t, const char *what, CK_RV rv, struct err *err)
{
    const char *name = rv_name(rv);

    if (name != NULL) {
        err_set(err, ERR_UNAVAILABLE, "%s: %s", what, name);
    } else {
        err_set(err, ERR_UNAVAILABLE, "%s: CKR %#lx", what, (unsigned long)rv);
    }
    return err_where(err, "%s", t->name.module);
}

/* Trying again would take away one of the tries that are left: ERR_DENIED, nobody does. */
static int pin_refused(const struct signer_token *t, const char *what, struct err *err)
{
    err_set(err, ERR_DENIED, "%s", what);
    err_where(err, "token %s", t->name.label);
    return err_advise(err, "put the token's user PIN into the file that ca.key_at_rest.pkcs11 "
                           "names; it is not tried again until that changes");
}

/* --- the module ------------------------------------------------------------------------------- */
static int load(struct signer_token *t, struct err *err)
{
    CK_C_GetFunctionList get_list = NULL;
    void *symbol;
    CK_RV rv;

    /* One thread. NOLINTBEGIN(concurrency-mt-unsafe) */
    t->module = dlopen(t->name.module, RTLD_NOW | RTLD_LOCAL);
    if (t->module == NULL) {
        const char *why = dlerror();

        err_set(err, ERR_CONFIG, "the module cannot be loaded: %s", why != NULL ? why : "?");
        err_where(err, "%s", t->name.module);
        return err_advise(err, "name the token's PKCS#11 library as ca.key_at_rest.pkcs11.module");
    }
    symbol = dlsym(t->module, "C_GetFunctionList");
    /* NOLINTEND(concurrency-mt-unsafe) */
    memcpy(&get_list, &symbol, sizeof(get_list)); /* C knows no other way from object to function */
    if (get_list == NULL) {
        err_set(err, ERR_CONFIG, "this library is no PKCS#11 module");
        err_expected(err, "one with C_GetFunctionList");
        return err_where(err, "%s", t->name.module);
    }
    rv = get_list(&t->fn);
    if (rv != CKR_OK) {
        return signer_token_failed(t, "C_GetFunctionList", rv, err);
    }
    rv = t->fn->C_Initialize(NULL);
    if (rv != CKR_OK) {
        signer_token_failed(t, "the module does not start", rv, err);
        return err_advise(err, "it may not reach its files: see environment and token_paths of "
                               "ca.key_at_rest.pkcs11, and what the signer's log lines say");
    }
    return 0;
}

/* --- the token -------------------------------------------------------------------------------- */
/* Labels are padded with blanks. */
static bool has_label(const CK_TOKEN_INFO *info, const char *label)
{
    size_t n = strlen(label);

    if (n > sizeof(info->label) || memcmp(info->label, label, n) != 0) {
        return false;
    }
    for (; n < sizeof(info->label); n++) {
        if (info->label[n] != ' ') {
            return false;
        }
    }
    return true;
}

static int find_slot(const struct signer_token *t, CK_SLOT_ID *ret, CK_TOKEN_INFO *ret_info,
                     struct err *err)
{
    CK_SLOT_ID slots[SLOTS_MAX];
    CK_ULONG n = SLOTS_MAX;
    CK_RV rv = t->fn->C_GetSlotList(CK_TRUE, slots, &n);
    size_t found = 0;

    if (rv != CKR_OK) {
        return signer_token_failed(t, "the module's slots", rv, err);
    }
    for (CK_ULONG i = 0; i < n; i++) {
        CK_TOKEN_INFO info;

        memset(&info, 0, sizeof(info));
        if (t->fn->C_GetTokenInfo(slots[i], &info) == CKR_OK && has_label(&info, t->name.label)) {
            *ret = slots[i];
            *ret_info = info;
            found++;
        }
    }
    if (found == 1) {
        return 0;
    }
    err_set(err, ERR_CONFIG,
            found == 0 ? "the module shows no token '%s' among %lu"
                       : "the module shows more than one token '%s' among %lu",
            t->name.label, (unsigned long)n);
    err_where(err, "%s", t->name.module);
    return err_advise(err,
                      "see its label (pkcs11-tool --list-token-slots), and whether token_paths "
                      "and the files' modes let the signer's user in");
}

static int log_in(struct signer_token *t, CK_SLOT_ID slot, const CK_TOKEN_INFO *info,
                  struct str pin, struct err *err)
{
    CK_UTF8CHAR *text = mem_secret_alloc(pin.n + 1);
    CK_RV rv;

    if (text == NULL) {
        return err_set(err, ERR_LIMIT, "no memory for the PIN");
    }
    if ((info->flags & CKF_USER_PIN_LOCKED) != 0) {
        mem_secret_free(text);
        return pin_refused(t, "the user PIN is locked", err);
    }
    if ((info->flags & CKF_USER_PIN_FINAL_TRY) != 0) {
        mem_secret_free(text);
        return pin_refused(t, "one more wrong PIN would lock the token: this one is not tried",
                           err);
    }
    rv = t->fn->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &t->session);
    if (rv == CKR_OK) {
        memcpy(text, pin.p, pin.n);
        rv = t->fn->C_Login(t->session, CKU_USER, text, pin.n);
    }
    mem_secret_free(text);
    if (rv == CKR_PIN_INCORRECT || rv == CKR_PIN_INVALID || rv == CKR_PIN_LEN_RANGE) {
        return pin_refused(t, "the user PIN is wrong", err);
    }
    if (rv == CKR_PIN_LOCKED || rv == CKR_PIN_EXPIRED) {
        return pin_refused(
            t, rv == CKR_PIN_LOCKED ? "the user PIN is locked" : "the user PIN has expired", err);
    }
    return rv == CKR_OK || rv == CKR_USER_ALREADY_LOGGED_IN
               ? 0
               : signer_token_failed(t, "logging in to the token", rv, err);
}

int signer_token_open(const struct signer_token_name *name, struct str pin,
                      struct signer_token **ret, struct err *err)
{
    struct signer_token *t = mem_must_new(struct signer_token);
    CK_TOKEN_INFO info = {.flags = 0};
    CK_SLOT_ID slot = 0;

    t->name = *name;
    if (load(t, err) == -1 || find_slot(t, &slot, &info, err) == -1 ||
        log_in(t, slot, &info, pin, err) == -1) {
        free(t);
        return -1;
    }
    *ret = t;
    return 0;
}
