// Package postgres captures PostgreSQL clusters over the replication protocol.
//
// [Config] makes the settings of a connection, as libpq does; package wire speaks the protocol.
package postgres
