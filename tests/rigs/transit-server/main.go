// A transit server for the tests: the real Vault core and its transit engine (1.13, under the MPL; OpenBao was forked
// from 1.14, which cannot be built from published modules, as its own go.mod replaces api and sdk by folders of its
// repository), with storage in memory, on one TLS listener. What it never does is left out, since building that would
// take longer than all the rest (without/). It starts uninitialised; the rig initialises, unseals and configures it over
// HTTP, as it does with a real `bao` binary.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/audit"
	auditfile "github.com/hashicorp/vault/builtin/audit/file"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/credential/cert"
	"github.com/hashicorp/vault/builtin/logical/transit"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
	"github.com/sasha-s/go-deadlock"
)

// Vault's locks are watched for deadlocks by a library that takes all goroutines for one with Go 1.23 and 1.24, and then
// ends the process.
func init() {
	deadlock.Opts.Disable = true
}

var engines = map[string]logical.Factory{"transit": transit.Factory}

var logins = map[string]logical.Factory{
	"approle":    approle.Factory,
	"cert":       cert.Factory,
	"kubernetes": kubernetes.Factory,
}

// builtins tells the core what is compiled in: nothing but the maps above.
type builtins struct{}

func lookup(name string, kind consts.PluginType) (logical.Factory, bool) {
	switch kind {
	case consts.PluginTypeCredential:
		factory, found := logins[name]
		return factory, found
	case consts.PluginTypeSecrets:
		factory, found := engines[name]
		return factory, found
	}
	return nil, false
}

func (builtins) Contains(name string, kind consts.PluginType) bool {
	_, found := lookup(name, kind)
	return found
}

func (builtins) Get(name string, kind consts.PluginType) (func() (interface{}, error), bool) {
	factory, found := lookup(name, kind)
	return func() (interface{}, error) { return factory, nil }, found
}

func (builtins) Keys(kind consts.PluginType) []string {
	var names []string
	for _, all := range []map[string]logical.Factory{engines, logins} {
		for name := range all {
			if _, found := lookup(name, kind); found {
				names = append(names, name)
			}
		}
	}
	return names
}

func (builtins) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	_, found := lookup(name, kind)
	return consts.Supported, found
}

func (builtins) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }

func serve() error {
	address := flag.String("address", "127.0.0.1:0", "address to listen on")
	ready := flag.String("ready-file", "", "file that receives the address once the server listens")
	certificate := flag.String("cert", "", "server certificate (PEM)")
	key := flag.String("key", "", "its private key (PEM)")
	flag.Parse()

	logger := hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Info})
	storage, err := inmem.NewInmem(nil, logger)
	if err != nil {
		return err
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:           storage,
		LogicalBackends:    engines,
		CredentialBackends: logins,
		AuditBackends:      map[string]audit.Factory{"file": auditfile.Factory},
		BuiltinRegistry:    builtins{},
		DisableMlock:       true,
		Logger:             logger,
	})
	if err != nil {
		return err
	}

	pair, err := tls.LoadX509KeyPair(*certificate, *key)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	// A client certificate is asked for and never judged here, as the real server does: auth/cert does that.
	secure := tls.NewListener(listener, &tls.Config{
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequestClientCert,
		MinVersion:   tls.VersionTLS12,
	})
	server := &http.Server{
		Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
			Core:           core,
			ListenerConfig: &configutil.Listener{Address: listener.Addr().String()},
		}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	if *ready != "" {
		// Written beside and renamed, so that a reader never sees half an address.
		if err := os.WriteFile(*ready+".new", []byte(listener.Addr().String()+"\n"), 0o600); err != nil {
			return err
		}
		if err := os.Rename(*ready+".new", *ready); err != nil {
			return err
		}
	}

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		server.Close()
	}()
	if err := server.Serve(secure); err != http.ErrServerClosed {
		return err
	}
	return core.Shutdown()
}

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "transit-server:", err)
		os.Exit(1)
	}
}
