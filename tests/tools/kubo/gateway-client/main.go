// gateway-client reads from a trustless gateway with boxo, the library of Kubo and of the public gateways, which
// verifies every block, and serves what it read on a port of its own. It is for tests.
package main

import (
	"flag"
	"log"
	"net"
	"net/http"

	"github.com/ipfs/boxo/gateway"
	_ "github.com/multiformats/go-multihash/register/all" // blake3
)

// bearer adds a token to each request.
type bearer struct{ token string }

func (b bearer) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("Authorization", "Bearer "+b.token)
	return http.DefaultTransport.RoundTrip(request)
}

func main() {
	from := flag.String("from", "", "the trustless gateway, http://host:port")
	token := flag.String("token", "", "the bearer token to show it")
	by := flag.String("by", "car", "what is asked for: car or raw")
	listen := flag.String("listen", "127.0.0.1:0", "where to serve what was read")
	flag.Parse()

	client := &http.Client{Transport: bearer{*token}}
	var backend gateway.IPFSBackend
	var err error
	if *by == "raw" {
		backend, err = gateway.NewRemoteBlocksBackend([]string{*from}, client)
	} else {
		backend, err = gateway.NewRemoteCarBackend([]string{*from}, client)
	}
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	log.Println("serving on", listener.Addr())
	log.Fatal(http.Serve(listener, gateway.NewHandler(gateway.Config{DeserializedResponses: true}, backend)))
}
