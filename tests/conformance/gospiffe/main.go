// What go-spiffe makes of an agent: everything that it is told once, every update, and mutual TLS by it.
//
//	gospiffe fetch SOCKET DOMAIN      the identities, the bundle, and that an SVID is replaced
//	gospiffe watch SOCKET             a line "update ID SERIAL HOW-MANY" for each message
//	gospiffe serve SOCKET PEER-ID     mTLS server: "listening ADDRESS", then echoes to that peer
//	gospiffe call SOCKET PEER-ID ADDRESS TEXT   mTLS client: "echo TEXT from ID SERIAL"
//	gospiffe sources SOCKET AUDIENCE  answers "x509" and "jwt" on standard input by sources that it keeps
//	gospiffe matrix VERB SOCKET ...   as the clients of other languages (../clients/README.md)
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func fail(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func fetch(ctx context.Context, where workloadapi.ClientOption, domain string) {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	c, err := workloadapi.FetchX509Context(ctx, where)
	fail(err)
	for _, s := range c.SVIDs {
		fmt.Println(s.ID, s.Hint)
	}
	bundles, err := workloadapi.FetchX509Bundles(ctx, where)
	fail(err)
	b, err := bundles.GetX509BundleForTrustDomain(spiffeid.RequireTrustDomainFromString(domain))
	fail(err)
	fmt.Println("authorities", len(b.X509Authorities()))

	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(where))
	fail(err)
	defer source.Close()
	first, err := source.GetX509SVID()
	fail(err)
	for {
		select {
		case <-source.Updated():
		case <-ctx.Done():
			fail(ctx.Err())
		}
		next, err := source.GetX509SVID()
		fail(err)
		if next.Certificates[0].SerialNumber.Cmp(first.Certificates[0].SerialNumber) != 0 {
			fmt.Println("rotated")
			return
		}
	}
}

type watcher struct{}

func (watcher) OnX509ContextUpdate(c *workloadapi.X509Context) {
	s := c.DefaultSVID()
	// What came is a path that its own bundle bears out, and not only something that could be parsed.
	_, _, err := x509svid.Verify(s.Certificates, c.Bundles)
	fail(err)
	fmt.Printf("update %s %x %d\n", s.ID, s.Certificates[0].SerialNumber, len(c.SVIDs))
}

func (watcher) OnX509ContextWatchError(err error) {
	fmt.Println("error", err)
}

// serve and call keep the source that go-spiffe's users have: its SVID and bundle change under them.
func source(ctx context.Context, where workloadapi.ClientOption) *workloadapi.X509Source {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	s, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(where))
	fail(err)
	return s
}

func serve(ctx context.Context, where workloadapi.ClientOption, peer spiffeid.ID) {
	s := source(ctx, where)
	config := tlsconfig.MTLSServerConfig(s, s, tlsconfig.AuthorizeID(peer))
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	fail(err)
	fmt.Println("listening", listener.Addr())
	for {
		conn, err := listener.Accept()
		fail(err)
		go func(conn net.Conn) {
			defer conn.Close()
			if _, err := io.Copy(conn, conn); err != nil {
				fmt.Println("refused", err)
			}
		}(conn)
	}
}

func call(ctx context.Context, where workloadapi.ClientOption, peer spiffeid.ID, address, text string) {
	s := source(ctx, where)
	defer s.Close()
	dialer := net.Dialer{Timeout: 20 * time.Second}
	conn, err := tls.DialWithDialer(&dialer, "tcp", address, tlsconfig.MTLSClientConfig(s, s, tlsconfig.AuthorizeID(peer)))
	fail(err)
	defer conn.Close()
	fail(conn.SetDeadline(time.Now().Add(20 * time.Second)))
	_, err = io.WriteString(conn, text)
	fail(err)
	fail(conn.CloseWrite())
	echo, err := io.ReadAll(conn)
	fail(err)
	leaf := conn.ConnectionState().PeerCertificates[0]
	fmt.Printf("echo %s from %s %x\n", echo, leaf.URIs[0], leaf.SerialNumber)
}

func main() {
	if len(os.Args) < 3 {
		fmt.Println("usage: gospiffe fetch|watch|serve|call|sources|matrix ...")
		os.Exit(2)
	}
	ctx := context.Background()
	where := workloadapi.WithAddr("unix://" + os.Args[2])
	switch a := os.Args; {
	case a[1] == "matrix" && len(a) > 3 && matrix(ctx, a[2:]):
	case a[1] == "fetch" && len(a) == 4:
		fetch(ctx, where, a[3])
	case a[1] == "sources" && len(a) == 4:
		sources(ctx, where, a[3])
	case a[1] == "watch" && len(a) == 3:
		fail(workloadapi.WatchX509Context(ctx, watcher{}, where))
	case a[1] == "serve" && len(a) == 4:
		serve(ctx, where, spiffeid.RequireFromString(a[3]))
	case a[1] == "call" && len(a) == 6:
		call(ctx, where, spiffeid.RequireFromString(a[3]), a[4], a[5])
	default:
		fmt.Println("wrong arguments:", a[1:])
		os.Exit(2)
	}
}
