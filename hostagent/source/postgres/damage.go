package postgres

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// nameLimit is how long the server may take to say what the relations with damaged pages are called.
const nameLimit = time.Minute

// nameDamage makes problems of the damaged pages, with the names that people know.
func (c *capture) nameDamage(ctx context.Context) error {
	c.result.Damaged = c.pages.count
	if c.pages.count == 0 {
		return nil
	}
	found := c.pages.damaged
	slices.SortFunc(found, func(a, b damagedPage) int {
		return cmp.Or(snapshot.ComparePaths("/"+a.rel, "/"+b.rel), cmp.Compare(a.block, b.block))
	})
	called := c.relationNames(ctx, found)
	for _, d := range found {
		text := fmt.Sprintf("%s: %v", called[key(d.relation)], d.err)
		c.result.Problems = append(c.result.Problems, snapshot.Problem{
			Path: []byte(path.Join(c.root, d.rel)), Operation: OperationPage, Error: text,
		})
	}
	if more := c.pages.count - uint64(len(found)); more > 0 {
		c.result.Problems = append(c.result.Problems, snapshot.Problem{
			Path: []byte(c.root), Operation: OperationPage, Error: fmt.Sprintf("%d more pages are damaged", more),
		})
	}
	c.result.Counts.Errors += c.pages.count
	return nil
}

// key is what all files of a relation have in common.
func key(r postgres.Relation) postgres.Relation {
	return postgres.Relation{Tablespace: r.Tablespace, Database: r.Database, Filenode: r.Filenode, Fork: r.Fork}
}

// relationNames asks the server what relations are called. What it does not say is called by its number.
func (c *capture) relationNames(ctx context.Context, found []damagedPage) map[postgres.Relation]string {
	ctx, cancel := context.WithTimeout(ctx, nameLimit)
	defer cancel()
	called := map[postgres.Relation]string{}
	of := map[uint32][]postgres.Relation{} // by database
	for _, d := range found {
		k := key(d.relation)
		if _, ok := called[k]; !ok {
			called[k] = k.String()
			of[k.Database] = append(of[k.Database], k)
		}
	}
	databases, err := c.ask(ctx, "", "SELECT oid, datname FROM pg_catalog.pg_database")
	if err != nil {
		c.Note(fmt.Sprintf("the names of damaged relations can not be asked for: %v", err))
		return called
	}
	for oid, relations := range of {
		name := databases[strconv.FormatUint(uint64(oid), 10)]
		if name == "" && oid != 0 {
			continue
		}
		got, err := c.ask(ctx, name, filenodeQuery(relations))
		if err != nil {
			c.Note(fmt.Sprintf("the names of damaged relations of database %s can not be asked for: %v", name, err))
			continue
		}
		for _, r := range relations {
			relation, ok := got[strconv.FormatUint(uint64(r.Filenode), 10)]
			if !ok {
				continue
			}
			called[r] = "relation " + relation
			if r.Fork != "" {
				called[r] += " (" + r.Fork + ")"
			}
			if oid != 0 {
				called[r] += " of database " + name
			}
		}
	}
	return called
}

// filenodeQuery asks for the names of relations by their files: pairs of filenode and name.
func filenodeQuery(relations []postgres.Relation) string {
	var values []string
	for _, r := range relations {
		space := r.Tablespace
		if space == postgres.DefaultTablespace {
			space = 0
		}
		values = append(values, fmt.Sprintf("(%d::oid, %d::oid)", space, r.Filenode))
	}
	return "SELECT v.node, n.nspname || '.' || k.relname FROM (VALUES " + strings.Join(values, ", ") + ") AS v (space, node) " +
		"JOIN pg_catalog.pg_class k ON k.oid = pg_catalog.pg_filenode_relation(v.space, v.node) JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace"
}

// ask runs a query that answers with pairs.
func (c *capture) ask(ctx context.Context, database, query string) (map[string]string, error) {
	conn, err := SQL(ctx, c.config, database)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	results, err := conn.Exec(ctx, query).ReadAll()
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, r := range results {
		for _, row := range r.Rows {
			if len(row) == 2 {
				out[string(row[0])] = string(row[1])
			}
		}
	}
	return out, nil
}
