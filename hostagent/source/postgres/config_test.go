package postgres_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	pgsource "github.com/btcdecoded/holdfast/hostagent/source/postgres"
)

// isolated has no settings of whoever runs the tests.
func isolated(t *testing.T) (home string) {
	t.Helper()
	home = t.TempDir()
	t.Setenv("HOME", home)
	for _, name := range []string{
		"PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGPASSFILE", "PGSERVICE", "PGSERVICEFILE", "PGDATABASE", "PGSSLMODE", "PGSSLROOTCERT",
	} {
		t.Setenv(name, "")
	}
	t.Setenv("PGSYSCONFDIR", filepath.Join(home, "etc"))
	return home
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestServices(t *testing.T) {
	home := isolated(t)
	write(t, filepath.Join(home, ".pg_service.conf"), "[own]\nhost=127.0.0.1\nport=5433\nuser=me\npassword=in the file\nsslmode=disable\nkeepalives_idle=30\n")
	write(t, filepath.Join(home, "etc", "pg_service.conf"), "[own]\nhost=10.0.0.1\n[governance]\nhost=db.example\nuser=holdfast\ndbname=governance_production\n"+
		"sslmode=verify-full\nssl_min_protocol_version=TLSv1.3\nfallback_application_name=backup\ngssencmode=prefer\n")
	own, err := pgsource.Config("own")
	if err != nil {
		t.Fatal(err)
	}
	if own.Host != "127.0.0.1" || own.Port != 5433 || own.User != "me" || own.Password != "in the file" || own.TLSConfig != nil {
		t.Errorf("got %s, TLS %v", pgsource.Describe(own), own.TLSConfig != nil)
	}
	if pgsource.Describe(own) != "me@127.0.0.1:5433" {
		t.Error(pgsource.Describe(own))
	}
	system, err := pgsource.Config("governance")
	if err != nil {
		t.Fatal(err)
	}
	if system.Host != "db.example" || system.Database != "governance_production" || system.TLSConfig == nil ||
		system.TLSConfig.ServerName != "db.example" || system.TLSConfig.MinVersion != 0x304 || system.RuntimeParams["application_name"] != "backup" {
		t.Errorf("got %s: %v", pgsource.Describe(system), system.RuntimeParams)
	}
	for name := range system.RuntimeParams {
		if name != "application_name" {
			t.Errorf("%s would be sent to the server", name)
		}
	}
	_, err = pgsource.Config("unknown")
	wants(t, toldOf(err), "service unknown: is in no service file", filepath.Join(home, ".pg_service.conf"), "[unknown]")
	t.Setenv("PGSERVICEFILE", filepath.Join(home, "missing"))
	if _, err := pgsource.Config("own"); err != nil {
		t.Errorf("a service of the system's file: %v", err)
	}
}

func toldOf(err error) string {
	if err == nil {
		return "no error"
	}
	return told(err)
}

func TestPasswords(t *testing.T) {
	home := isolated(t)
	write(t, filepath.Join(home, ".pgpass"), "localhost:5432:replication:holdfast:for replication\n127.0.0.1:*:app:holdfast:for app\n")
	for connection, want := range map[string]string{
		"host=/run/postgresql user=holdfast dbname=any": "for replication",
		"host=127.0.0.1 user=holdfast dbname=app":       "for app",
		"postgres://holdfast:here@127.0.0.1/app":        "here",
		"host=127.0.0.1 user=other":                     "",
	} {
		c, err := pgsource.Config(connection)
		if err != nil {
			t.Error(err)
			continue
		}
		if c.Password != want {
			t.Errorf("%s: another password than expected", connection)
		}
	}
}

func TestWhatIsRefused(t *testing.T) {
	isolated(t)
	for connection, want := range map[string]string{
		"host=h password=geheim sslcrl=/x":                               "sslcrl is not supported",
		"host=h password=geheim requirepeer=postgres":                    "requirepeer is not supported",
		"host=h password=geheim gssencmode=require":                      "gssencmode=require is not supported",
		"host=h password=geheim ssl_min_protocol_version=SSLv3":          "want TLSv1.2",
		"host=h password=geheim sslmode=perhaps":                         "sslmode is invalid",
		"host=h password=geheim sslmode=verify-ca sslrootcert=/nowhere":  "/nowhere",
		"host=h password=geheim keepalives_idle=long":                    "keepalives_idle=long",
		"host=a,b hostaddr=10.0.0.1 password=geheim":                     "hostaddr with several hosts",
		"host=h password='geheim":                                        "can not be read",
		"postgres://user:geheim@host:port/db":                            "can not be read",
		"postgres://user:ge heim@host/db":                                "",
		"host=h password=geheim connect_timeout=geheim":                  "can not be read",
		"host=h password=geheim target_session_attrs=geheim sslmode=xyz": "",
	} {
		_, err := pgsource.Config(connection)
		if err == nil {
			if want != "" {
				t.Errorf("%q is taken", connection)
			}
			continue
		}
		text := toldOf(err)
		if !strings.Contains(text, want) {
			t.Errorf("%q: %s", connection, text)
		}
		if strings.Contains(text, "geheim") || strings.Contains(text, "heim@") {
			t.Errorf("the password is in %q", text)
		}
	}
	c, err := pgsource.Config("host=h hostaddr=127.0.0.9 keepalives=0 tcp_user_timeout=1000 sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	if addrs, err := c.LookupFunc(t.Context(), "h"); err != nil || len(addrs) != 1 || addrs[0] != "127.0.0.9" {
		t.Errorf("hostaddr leads to %v, %v", addrs, err)
	}
}
