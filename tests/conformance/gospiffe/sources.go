// Sources that live as long as the program does, whatever becomes of the agent.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// sources answers each line of standard input: "x509" with "ID SERIAL" of what the source holds now, borne out by the
// bundle that it holds; "jwt" with "ID KEYS", of a token fetched now and judged by the keys that the source holds.
// What fails is answered with "error ...", and the program goes on.
func sources(ctx context.Context, where workloadapi.ClientOption, audience string) {
	start, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	certs, err := workloadapi.NewX509Source(start, workloadapi.WithClientOptions(where))
	fail(err)
	defer certs.Close()
	tokens, err := workloadapi.NewJWTSource(start, workloadapi.WithClientOptions(where))
	fail(err)
	defer tokens.Close()
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var answer string
		var err error
		switch lines.Text() {
		case "x509":
			answer, err = askX509(certs)
		case "jwt":
			answer, err = askJWT(ctx, tokens, audience)
		}
		if err != nil {
			answer = "error " + err.Error()
		}
		fmt.Println(answer)
	}
}

func askX509(certs *workloadapi.X509Source) (string, error) {
	s, err := certs.GetX509SVID()
	if err != nil {
		return "", err
	}
	id, _, err := x509svid.Verify(s.Certificates, certs)
	return fmt.Sprintf("%s %x", id, s.Certificates[0].SerialNumber), err
}

func askJWT(ctx context.Context, tokens *workloadapi.JWTSource, audience string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := tokens.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return "", err
	}
	judged, err := jwtsvid.ParseAndValidate(s.Marshal(), tokens, []string{audience})
	if err != nil {
		return "", err
	}
	bundle, err := tokens.GetJWTBundleForTrustDomain(judged.ID.TrustDomain())
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %d", judged.ID, len(bundle.JWTAuthorities())), nil
}
