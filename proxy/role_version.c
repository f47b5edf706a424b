/* version: which binary this is, down to the libraries that it runs with. */
#include "role_options.h"
#include "roles_priv.h"

#include <event2/event.h>
#include <llhttp.h>
#include <nghttp2/nghttp2.h>
#include <openssl/crypto.h>
#include <postern/conf.h>
#include <protobuf-c/protobuf-c.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "version_tag.h"

const char *version_text(void)
{
    return POSTERN_VERSION " (" POSTERN_COMMIT ")";
}

struct options {
    bool sbom;
};

static const struct role_option OPTIONS[] = {
    ROLE_FLAG("--sbom", struct options, sbom,
              "what it is made of, as SPDX; or --sbom=spdx, --sbom=cyclonedx"),
};
static const struct role_use USE = {
    .command = "version",
    .uses = ROLE_USES("version [--sbom[=spdx|cyclonedx]]"),
    ROLE_OPTIONS(OPTIONS),
};

int version_main(int argc, char **argv)
{
    struct options o = {.sbom = false};
    int status;
    if (argc == 2 && strncmp(argv[1], "--sbom=", 7) == 0) {
        return sbom_print(argv[1] + 7);
    }
    if (!role_options(&USE, &argc, argv, &o, &status)) {
        return status;
    }
    if (o.sbom) {
        return sbom_print("spdx");
    }
    printf("postern %s (commit %s)\n", POSTERN_VERSION, POSTERN_COMMIT);
    printf("feature level %d\n", CONF_LEVEL);
    printf("%s\n", OpenSSL_version(OPENSSL_VERSION));
    printf("libevent %s\n", event_get_version());
    printf("nghttp2 %s\n", nghttp2_version(0)->version_str);
    printf("libyaml %s\n", yaml_get_version_string());
    printf("llhttp %d.%d.%d\n", LLHTTP_VERSION_MAJOR, LLHTTP_VERSION_MINOR, LLHTTP_VERSION_PATCH);
    printf("protobuf-c %s\n", protobuf_c_version());
    return 0;
}
