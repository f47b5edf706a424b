/* Who asks: which form of trust bundles an Envoy takes. Pure functions over its Node. */
#include "sds_priv.h"

enum {
    STRUCT_FIELDS = 1, /* of google.protobuf.Struct: map<string, Value> */
    ENTRY_KEY = 1,
    ENTRY_VALUE = 2,
    VALUE_STRING = 3, /* of Value */
    VALUE_BOOL = 4,
};

/* Of several, the last one counts, as protobuf has it. */
static bool value_is_true(struct str value)
{
    struct service_wire w = service_wire_of(value);
    bool is = false;
    while (service_wire_next(&w)) {
        if (w.field == VALUE_BOOL && !w.is_bytes) {
            is = w.number != 0;
        } else if (w.field == VALUE_STRING && w.is_bytes) {
            is = str_eq(w.bytes, STR_LIT("true"));
        }
    }
    return is && !w.bad;
}

bool service_sds_metadata_flag(struct str metadata, struct str key)
{
    struct service_wire w = service_wire_of(metadata);
    bool is = false;
    while (service_wire_next(&w)) {
        if (w.field != STRUCT_FIELDS || !w.is_bytes) {
            continue;
        }
        struct service_wire entry = service_wire_of(w.bytes);
        struct str name = STR_NONE;
        struct str value = STR_NONE;
        while (service_wire_next(&entry)) {
            if (entry.is_bytes && entry.field == ENTRY_KEY) {
                name = entry.bytes;
            } else if (entry.is_bytes && entry.field == ENTRY_VALUE) {
                value = entry.bytes;
            }
        }
        if (!entry.bad && str_eq(name, key)) {
            is = value_is_true(value);
        }
    }
    return is && !w.bad;
}

/* The SPIFFE validator came with Envoy 1.18; who does not say what it is, is newer than that. */
bool service_sds_takes_spiffe_validator(const Sds__Node *node)
{
    if (node == NULL) {
        return true;
    }
    struct str metadata = {(const char *)node->metadata.data, node->metadata.len};
    if (service_sds_metadata_flag(metadata, STR_LIT("disable_spiffe_cert_validation"))) {
        return false;
    }
    const Sds__BuildVersion *b = node->user_agent_build_version;
    if (b == NULL || b->version == NULL) {
        return true;
    }
    const Sds__SemanticVersion *v = b->version;
    return v->major_number > 1 || (v->major_number == 1 && v->minor_number >= 18);
}
