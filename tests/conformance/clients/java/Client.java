// java-spiffe as a client of the Workload API; see ../README.md.

import io.grpc.StatusRuntimeException;
import io.spiffe.bundle.jwtbundle.JwtBundle;
import io.spiffe.bundle.x509bundle.X509Bundle;
import io.spiffe.bundle.x509bundle.X509BundleSet;
import io.spiffe.spiffeid.TrustDomain;
import io.spiffe.svid.jwtsvid.JwtSvid;
import io.spiffe.svid.x509svid.X509Svid;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.Watcher;
import io.spiffe.workloadapi.WorkloadApiClient;
import io.spiffe.workloadapi.X509Context;
import java.util.HexFormat;
import java.util.Map;
import java.util.StringJoiner;
import java.util.concurrent.CountDownLatch;
import java.util.logging.LogManager;

public final class Client {
    private static String quote(String s) {
        StringBuilder b = new StringBuilder("\"");
        for (char c : (s == null ? "" : s).toCharArray()) {
            if (c == '"' || c == '\\') {
                b.append('\\').append(c);
            } else if (c < 0x20) {
                b.append(String.format("\\u%04x", (int) c));
            } else {
                b.append(c);
            }
        }
        return b.append('"').toString();
    }

    private static synchronized void say(String event, String fields) {
        System.out.println("{\"event\":" + quote(event) + "," + fields + "}");
        System.out.flush();
    }

    private static void sayError(Throwable e) {
        String code = e.getClass().getSimpleName();
        String text = e.toString();
        for (Throwable t = e; t != null; t = t.getCause()) {
            if (t instanceof StatusRuntimeException s) {
                code = s.getStatus().getCode().name();
                text = t.toString();
            }
        }
        say("error", "\"code\":" + quote(code) + ",\"text\":" + quote(text));
    }

    private static String authorities(X509BundleSet set) {
        StringJoiner all = new StringJoiner(",", "{", "}");
        for (Map.Entry<TrustDomain, X509Bundle> e : set.getBundles().entrySet()) {
            all.add(quote(e.getKey().getName()) + ":" + e.getValue().getX509Authorities().size());
        }
        return all.toString();
    }

    private static void sayX509(X509Context context) throws Exception {
        StringJoiner all = new StringJoiner(",", "[", "]");
        for (X509Svid s : context.getX509Svids()) {
            all.add("{\"id\":" + quote(s.getSpiffeId().toString()) + ",\"hint\":" + quote(s.getHint()) + ",\"leaf\":"
                    + quote(HexFormat.of().formatHex(s.getLeaf().getEncoded())) + "}");
        }
        say("x509", "\"svids\":" + all + ",\"bundles\":" + authorities(context.getX509BundleSet()));
    }

    private static void watch(WorkloadApiClient client) throws Exception {
        client.watchX509Context(new Watcher<X509Context>() {
            @Override
            public void onUpdate(X509Context context) {
                try {
                    sayX509(context);
                } catch (Exception e) {
                    sayError(e);
                }
            }

            @Override
            public void onError(Throwable e) {
                sayError(e);
            }
        });
        new CountDownLatch(1).await();
    }

    private static void jwt(WorkloadApiClient client, String audience) throws Exception {
        StringJoiner svids = new StringJoiner(",", "[", "]");
        for (JwtSvid s : client.fetchJwtSvids(audience)) {
            svids.add("{\"id\":" + quote(s.getSpiffeId().toString()) + ",\"hint\":" + quote(s.getHint()) + ",\"token\":"
                    + quote(s.getToken()) + "}");
        }
        say("jwt", "\"svids\":" + svids);
        StringJoiner domains = new StringJoiner(",", "{", "}");
        for (Map.Entry<TrustDomain, JwtBundle> e : client.fetchJwtBundles().getBundles().entrySet()) {
            domains.add(quote(e.getKey().getName()) + ":" + e.getValue().getJwtAuthorities().size());
        }
        say("jwks", "\"domains\":" + domains);
    }

    public static void main(String[] args) {
        LogManager.getLogManager().reset();
        var options = DefaultWorkloadApiClient.ClientOptions.builder().spiffeSocketPath("unix:" + args[1]).build();
        int status = 0;
        try (WorkloadApiClient client = DefaultWorkloadApiClient.newClient(options)) {
            switch (args[0]) {
                case "fetch" -> {
                    sayX509(client.fetchX509Context());
                    say("bundles", "\"domains\":" + authorities(client.fetchX509Bundles()));
                }
                case "watch" -> watch(client);
                case "jwt" -> jwt(client, args[2]);
                case "validate" ->
                    say("valid", "\"id\":" + quote(client.validateJwtSvid(args[3], args[2]).getSpiffeId().toString()));
                default -> status = 2;
            }
        } catch (Exception e) {
            sayError(e);
            status = 1;
        }
        System.exit(status);
    }
}
