/*
 * What this executable and those beside it are made of, in the two formats that others read: SPDX
 * 2.3 and CycloneDX 1.5, both as JSON. The rows come from the build (packaging/sbom_parts.py); the
 * same build prints the same bytes.
 */
#include "roles_priv.h"

#include <inttypes.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sbom_part {
    const char *name, *version, *license, *used_by;
    const char *source, *source_version; /* the distribution's; empty: unknown */
    const char *linkage;                 /* static, dynamic */
};
#include "sbom_parts.h"

enum { N_PARTS = sizeof(SBOM_PARTS) / sizeof(SBOM_PARTS[0]), TEXT_MAX = 512 };

/* https://github.com/package-url/purl-spec, types deb and generic. */
static const char *purl(const struct sbom_part *p, char ret[TEXT_MAX])
{
    if (p->source[0] == '\0' || SBOM_DISTRO[0] == '\0') {
        snprintf(ret, TEXT_MAX, "pkg:generic/%s@%s", p->name, p->version);
        return ret;
    }
    char version[TEXT_MAX / 2];
    size_t n = 0;
    for (const char *c = p->source_version; *c != '\0' && n + 4 < sizeof(version); c++) {
        if (*c == ':' || *c == '+') { /* the two that Debian's versions have and a purl escapes */
            n += (size_t)snprintf(version + n, sizeof(version) - n, "%%%02X", (unsigned)*c);
        } else {
            version[n++] = *c;
        }
    }
    version[n] = '\0';
    snprintf(ret, TEXT_MAX, "pkg:deb/%s/%s@%s?arch=source&distro=%s-%s", SBOM_DISTRO, p->source,
             version, SBOM_DISTRO, SBOM_RELEASE);
    return ret;
}

/* A UUID that names this document and no other: of everything that is in it (RFC 9562, 8). */
static void document_uuid(char ret[37])
{
    uint8_t d[32] = {0};
    unsigned len = 0;
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    if (c != NULL && EVP_DigestInit_ex(c, EVP_sha256(), NULL) == 1) {
        static const char *const fixed[] = {SBOM_VERSION, SBOM_COMMIT, SBOM_LINKAGE, SBOM_DISTRO,
                                            SBOM_RELEASE};
        for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
            EVP_DigestUpdate(c, fixed[i], strlen(fixed[i]) + 1);
        }
        for (size_t i = 0; i < N_PARTS; i++) {
            EVP_DigestUpdate(c, SBOM_PARTS[i].name, strlen(SBOM_PARTS[i].name) + 1);
            EVP_DigestUpdate(c, SBOM_PARTS[i].version, strlen(SBOM_PARTS[i].version) + 1);
            EVP_DigestUpdate(c, SBOM_PARTS[i].source_version,
                             strlen(SBOM_PARTS[i].source_version) + 1);
        }
        EVP_DigestFinal_ex(c, d, &len);
    }
    EVP_MD_CTX_free(c);
    d[6] = (uint8_t)((d[6] & 0x0f) | 0x80); /* version 8: of our own making */
    d[8] = (uint8_t)((d[8] & 0x3f) | 0x80);
    snprintf(ret, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", d[0],
             d[1], d[2], d[3], d[4], d[5], d[6], d[7], d[8], d[9], d[10], d[11], d[12], d[13],
             d[14], d[15]);
}

/* --- SPDX 2.3 --------------------------------------------------------------------------------- */

static json_t *spdx_package(const char *name, const char *version, const char *license,
                            const char *comment, const char *purl_text)
{
    json_t *p = json_pack("{s:o, s:s, s:s, s:s, s:b, s:s, s:s, s:s, s:s}", "SPDXID",
                          json_sprintf("SPDXRef-Package-%s", name), "name", name, "versionInfo",
                          version, "downloadLocation", "NOASSERTION", "filesAnalyzed", 0,
                          "licenseConcluded", license, "licenseDeclared", license, "copyrightText",
                          "NOASSERTION", "supplier", "NOASSERTION");
    if (comment != NULL) {
        json_object_set_new(p, "comment", json_sprintf("part of: %s", comment));
    }
    if (purl_text != NULL) {
        json_object_set_new(p, "externalRefs",
                            json_pack("[{s:s, s:s, s:s}]", "referenceCategory", "PACKAGE-MANAGER",
                                      "referenceType", "purl", "referenceLocator", purl_text));
    }
    return p;
}

static json_t *spdx(const char *uuid, const char *time)
{
    json_t *packages = json_array();
    json_t *relations = json_array();
    char text[TEXT_MAX];
    json_t *own = spdx_package("postern", SBOM_VERSION, "Apache-2.0", NULL, NULL);
    json_object_set_new(own, "sourceInfo", json_string("git commit " SBOM_COMMIT));
    json_array_append_new(packages, own);
    json_array_append_new(relations, json_pack("{s:s, s:s, s:s}", "spdxElementId",
                                               "SPDXRef-DOCUMENT", "relationshipType", "DESCRIBES",
                                               "relatedSpdxElement", "SPDXRef-Package-postern"));
    for (size_t i = 0; i < N_PARTS; i++) {
        const struct sbom_part *p = &SBOM_PARTS[i];
        json_array_append_new(
            packages, spdx_package(p->name, p->version, p->license, p->used_by, purl(p, text)));
        json_array_append_new(
            relations,
            json_pack("{s:s, s:s, s:o}", "spdxElementId", "SPDXRef-Package-postern",
                      "relationshipType",
                      strcmp(p->linkage, "static") == 0 ? "STATIC_LINK" : "DYNAMIC_LINK",
                      "relatedSpdxElement", json_sprintf("SPDXRef-Package-%s", p->name)));
    }
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:{s:s, s:[o]}, s:o, s:o}", "spdxVersion",
                     "SPDX-2.3", "dataLicense", "CC0-1.0", "SPDXID", "SPDXRef-DOCUMENT", "name",
                     "postern-" SBOM_VERSION, "documentNamespace",
                     json_sprintf("urn:uuid:%s", uuid), "creationInfo", "created", time, "creators",
                     json_sprintf("Tool: postern-%s", SBOM_VERSION), "packages", packages,
                     "relationships", relations);
}

/* --- CycloneDX 1.5 ---------------------------------------------------------------------------- */

static json_t *cyclonedx(const char *uuid, const char *time)
{
    json_t *components = json_array();
    json_t *refs = json_array();
    json_t *dependencies = json_array();
    char text[TEXT_MAX];
    for (size_t i = 0; i < N_PARTS; i++) {
        const struct sbom_part *p = &SBOM_PARTS[i];
        json_array_append_new(components,
                              json_pack("{s:s, s:s, s:s, s:s, s:[{s:{s:s}}], s:s, s:[{s:s, s:s}]}",
                                        "type", "library", "bom-ref", p->name, "name", p->name,
                                        "version", p->version, "licenses", "license", "id",
                                        p->license, "purl", purl(p, text), "properties", "name",
                                        "postern:used-by", "value", p->used_by));
        json_array_append_new(refs, json_string(p->name));
        json_array_append_new(dependencies, json_pack("{s:s}", "ref", p->name));
    }
    json_array_insert_new(dependencies, 0,
                          json_pack("{s:s, s:o}", "ref", "postern", "dependsOn", refs));
    return json_pack("{s:s, s:s, s:o, s:i, s:{s:s, s:{s:s, s:s, s:s, s:s, s:[{s:{s:s}}], "
                     "s:[{s:s, s:s}, {s:s, s:s}]}}, s:o, s:o}",
                     "bomFormat", "CycloneDX", "specVersion", "1.5", "serialNumber",
                     json_sprintf("urn:uuid:%s", uuid), "version", 1, "metadata", "timestamp", time,
                     "component", "type", "application", "bom-ref", "postern", "name", "postern",
                     "version", SBOM_VERSION, "licenses", "license", "id", "Apache-2.0",
                     "properties", "name", "postern:commit", "value", SBOM_COMMIT, "name",
                     "postern:linkage", "value", SBOM_LINKAGE, "components", components,
                     "dependencies", dependencies);
}

int sbom_print(const char *format)
{
    char uuid[37];
    char time[32];
    document_uuid(uuid);
    os_time_text(SBOM_TIME, time, sizeof(time));
    json_t *doc = NULL;
    if (strcmp(format, "spdx") == 0) {
        doc = spdx(uuid, time);
    } else if (strcmp(format, "cyclonedx") == 0) {
        doc = cyclonedx(uuid, time);
    } else {
        fprintf(stderr, "postern: no format '%s' of a bill of materials: spdx or cyclonedx\n",
                format);
        return 2;
    }
    int r = doc != NULL && json_dumpf(doc, stdout, JSON_INDENT(2)) == 0 && putchar('\n') != EOF &&
                    fflush(stdout) == 0
                ? 0
                : 1;
    json_decref(doc);
    return r;
}
