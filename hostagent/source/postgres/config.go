package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgpassfile"
	"github.com/jackc/pgservicefile"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/source/postgres/wire"
)

// systemServices are where libpq looks for services that the user's own file does not have: $PGSYSCONFDIR, or the place
// that was compiled in.
func systemServices() []string {
	if dir := os.Getenv("PGSYSCONFDIR"); dir != "" {
		return []string{filepath.Join(dir, "pg_service.conf")}
	}
	return []string{"/etc/postgresql-common/pg_service.conf", "/etc/sysconfig/pgsql/pg_service.conf", "/etc/pg_service.conf"}
}

// Config makes the settings of a connection of the name of a service, or of a connection string (keywords or URL), as libpq
// does: service files, .pgpass, PG* variables, TLS. What of libpq's settings can't be honoured is refused, where it would
// make a difference. Its errors never have a password in them.
func Config(connection string) (*pgconn.Config, error) {
	text := connection
	if IsService(connection) {
		file, err := serviceFile(connection)
		if err != nil {
			return nil, err
		}
		text = "service=" + keyword(connection) + " servicefile=" + keyword(file)
	}
	config, err := pgconn.ParseConfig(text)
	if err != nil {
		return nil, parseError(connection, err)
	}
	if err := settle(config); err != nil {
		return nil, err
	}
	if config.Password == "" {
		config.Password = replicationPassword(config)
	}
	return config, nil
}

// IsService reports whether a connection is the name of a service.
func IsService(connection string) bool {
	return connection != "" && !strings.Contains(connection, "=") && !strings.Contains(connection, "://")
}

// Describe says where a config leads to, without anything that is secret.
func Describe(config *pgconn.Config) string {
	return fmt.Sprintf("%s@%s", config.User, net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))))
}

// SQL opens an ordinary connection; database is another one than that of the config, if not empty. Errors: *wire.Error.
func SQL(ctx context.Context, config *pgconn.Config, database string) (*pgconn.PgConn, error) {
	config = config.Copy()
	if database != "" {
		config.Database = database
	}
	if _, ok := config.RuntimeParams["application_name"]; !ok {
		config.RuntimeParams["application_name"] = "holdfast"
	}
	c, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, wire.Explain("connect", err)
	}
	return c, nil
}

// ConfigError says what is wrong with how a server is named.
type ConfigError struct {
	Connection string // the service; empty where it was a connection string, which may have a password in it
	Err        error
	hint       string
}

func (e *ConfigError) Error() string {
	if e.Connection == "" {
		return "connection string: " + e.Err.Error()
	}
	return "service " + e.Connection + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// Hint says what the user can do.
func (e *ConfigError) Hint() string { return e.hint }

// parseError is an error of pgconn without the connection string.
func parseError(connection string, err error) error {
	e := &ConfigError{Err: errors.New("can not be read"), hint: "name a service of pg_service.conf, or a connection string such as 'host=/run/postgresql user=holdfast'"}
	if IsService(connection) {
		e.Connection = connection
	}
	if inner := errors.Unwrap(err); inner != nil && (IsService(connection) || harmless(inner)) {
		e.Err = inner
	}
	return e
}

// harmless reports whether an error tells of files and words only: others may quote from the connection string.
func harmless(err error) bool {
	var path *fs.PathError
	if errors.As(err, &path) {
		return true
	}
	for _, begin := range []string{"sslmode is invalid", "unable to", `both "sslcert"`, "failed to decode sslkey"} {
		if strings.HasPrefix(err.Error(), begin) {
			return true
		}
	}
	return false
}

// keyword quotes a value of a connection string.
func keyword(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// serviceFile is the first file that has the service.
func serviceFile(name string) (string, error) {
	var files []string
	if file := os.Getenv("PGSERVICEFILE"); file != "" {
		files = append(files, file)
	} else if home, err := os.UserHomeDir(); err == nil {
		files = append(files, filepath.Join(home, ".pg_service.conf"))
	}
	files = append(files, systemServices()...)
	var errs []error
	for _, file := range files {
		services, err := pgservicefile.ReadServicefile(file)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, fmt.Errorf("%s: %w", file, err))
			}
			continue
		}
		if _, err := services.GetService(name); err == nil {
			return file, nil
		}
	}
	if err := errors.Join(errs...); err != nil {
		return "", &ConfigError{Connection: name, Err: err}
	}
	return "", &ConfigError{
		Connection: name, Err: errors.New("is in no service file"),
		hint: fmt.Sprintf("add it to %s: [%s], then host=, port=, user=, dbname= on lines of their own", files[0], name),
	}
}

// replicationPassword looks in .pgpass for what libpq takes for connections for replication: a line whose database is
// "replication".
func replicationPassword(config *pgconn.Config) string {
	file := os.Getenv("PGPASSFILE")
	if file == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		file = filepath.Join(home, ".pgpass")
	}
	passwords, err := pgpassfile.ReadPassfile(file)
	if err != nil {
		return "" // none is there
	}
	host := config.Host
	if strings.HasPrefix(host, "/") {
		host = "localhost"
	}
	return passwords.FindPassword(host, strconv.Itoa(int(config.Port)), "replication", config.User)
}

// ignored are settings of libpq that make no difference here.
func ignored() []string {
	return []string{"gssencmode", "gsslib", "gssdelegation", "sslcompression", "load_balance_hosts", "replication", "servicefile"}
}

// refused are settings of libpq that a person relies on and that can't be honoured.
func refused() []string {
	return []string{"sslcrl", "sslcrldir", "requirepeer", "scram_client_key", "scram_server_key", "requiressl"}
}

// settle takes settings of libpq out of those that are sent to the server, and honours or refuses them.
func settle(config *pgconn.Config) error {
	params := config.RuntimeParams
	if mode := params["gssencmode"]; mode == "require" {
		return &ConfigError{Err: errors.New("gssencmode=require is not supported"), hint: "use TLS: sslmode=verify-full"}
	}
	for _, name := range refused() {
		if params[name] != "" {
			return &ConfigError{Err: fmt.Errorf("%s is not supported", name), hint: "leave it out if you can do without it"}
		}
		delete(params, name)
	}
	for _, name := range ignored() {
		delete(params, name)
	}
	if name, ok := params["fallback_application_name"]; ok {
		if params["application_name"] == "" {
			params["application_name"] = name
		}
		delete(params, "fallback_application_name")
	}
	if err := tlsVersions(config); err != nil {
		return err
	}
	return dialer(config)
}

// tlsVersions honours ssl_min_protocol_version and ssl_max_protocol_version.
func tlsVersions(config *pgconn.Config) error {
	versions := map[string]uint16{"TLSv1": 0x301, "TLSv1.1": 0x302, "TLSv1.2": 0x303, "TLSv1.3": 0x304}
	limit := func(name string) (uint16, error) {
		text := config.RuntimeParams[name]
		delete(config.RuntimeParams, name)
		v, ok := versions[text]
		if !ok && text != "" {
			return 0, &ConfigError{Err: fmt.Errorf("%s=%s: want TLSv1.2 or TLSv1.3", name, text)}
		}
		return v, nil
	}
	least, err := limit("ssl_min_protocol_version")
	if err != nil {
		return err
	}
	most, err := limit("ssl_max_protocol_version")
	if err != nil || least == 0 && most == 0 {
		return err
	}
	all := append([]*pgconn.FallbackConfig{{TLSConfig: config.TLSConfig}}, config.Fallbacks...)
	for _, f := range all {
		if f.TLSConfig == nil {
			continue
		}
		if least != 0 {
			f.TLSConfig.MinVersion = least
		}
		if most != 0 {
			f.TLSConfig.MaxVersion = most
		}
	}
	return nil
}

// dialer makes connections of which it is noticed within about two minutes that the other side is gone, unless keepalives
// says otherwise, and honours hostaddr.
func dialer(config *pgconn.Config) error {
	params := config.RuntimeParams
	alive := net.KeepAliveConfig{Enable: params["keepalives"] != "0", Idle: time.Minute, Interval: 15 * time.Second, Count: 4}
	for name, set := range map[string]func(n int){
		"keepalives": func(int) {}, "tcp_user_timeout": func(int) {},
		"keepalives_idle":     func(n int) { alive.Idle = time.Duration(n) * time.Second },
		"keepalives_interval": func(n int) { alive.Interval = time.Duration(n) * time.Second },
		"keepalives_count":    func(n int) { alive.Count = n },
	} {
		text, ok := params[name]
		if !ok {
			continue
		}
		delete(params, name)
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return &ConfigError{Err: fmt.Errorf("%s=%s: want a number", name, text)}
		}
		if n > 0 {
			set(n)
		}
	}
	d := &net.Dialer{Timeout: config.ConnectTimeout, KeepAliveConfig: alive}
	config.DialFunc = d.DialContext
	if addr := params["hostaddr"]; addr != "" {
		for _, f := range config.Fallbacks {
			if f.Host != config.Host {
				return &ConfigError{Err: errors.New("hostaddr with several hosts is not supported"), hint: "name the addresses in host="}
			}
		}
		config.LookupFunc = func(context.Context, string) ([]string, error) { return []string{addr}, nil }
	}
	delete(params, "hostaddr")
	return nil
}
