# The second half of the demo, read by demo.sh: a PostgreSQL and an SQLite database, from both of which somebody deletes rows
# by mistake, are brought back to the second before. What is not installed is said, and the rest is shown.

# The newest PostgreSQL of this machine.
postgres=
for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/local/pgsql/bin ${PATH//:/ }; do
	if [[ -x $dir/initdb && -x $dir/postgres && -x $dir/pg_ctl && -x $dir/psql ]]; then
		version=$("$dir/postgres" --version | grep -o '[0-9]\+' | head -n 1)
		if [[ -z $postgres || $version -gt $postgres_version ]]; then
			postgres=$dir postgres_version=$version
		fi
	fi
done
sqlite=$(command -v sqlite3 || true)

# PostgreSQL does not run as root.
as=()
if ((EUID == 0)); then
	user=nobody
	if id postgres >/dev/null 2>&1; then user=postgres; fi
	as=(setpriv "--reuid=$(id -u "$user")" "--regid=$(id -g "$user")" --clear-groups)
fi

[[ -n $postgres ]] || say "PostgreSQL is not installed here (apt-get install postgresql): what concerns it is left out."
[[ -n $sqlite ]] || say "sqlite3 is not installed here (apt-get install sqlite3): what concerns it is left out."

# end_databases ends what runs beside.
end_databases() {
	touch "$work/ended"
	[[ -z ${follower:-} ]] || kill "$follower" 2>/dev/null || true
	[[ ! -x $work/app-postgres ]] || "$work/app-postgres" stop || true
	[[ ! -x $work/app-sqlite ]] || "$work/app-sqlite" stop || true
	[[ -z ${home:-} || ! -d $home/data ]] || "${as[@]}" "$postgres/pg_ctl" -D "$home/data" -m immediate stop >/dev/null 2>&1 || true
	[[ ${home:-} != /tmp/holdfast-demo-postgres.* ]] || rm -rf "$home"
}

# application NAME CLIENT SQL: a script $work/app-NAME that starts and stops an application, which gives SQL to the client, in
# one session, again and again.
application() {
	cat >"$work/app-$1" <<-END
		#!/bin/bash
		case \$1 in
		start)
			setsid bash -c 'while true; do echo "$3;" && sleep 0.1 || exit; done | $2' </dev/null >/dev/null 2>>"$work/app-$1.log" &
			echo \$! >"$work/app-$1.pid"
			;;
		stop)
			[[ -e "$work/app-$1.pid" ]] || exit 0
			pid=\$(cat "$work/app-$1.pid")
			rm "$work/app-$1.pid"
			kill -- "-\$pid" 2>/dev/null
			while kill -0 -- "-\$pid" 2>/dev/null; do sleep 0.05; done
			;;
		esac
	END
	chmod +x "$work/app-$1"
}

ask_postgres() { "$postgres/psql" -qXAt -d service=governance -c "$1"; }
ask_sqlite() { "$sqlite" -cmd '.timeout 60000' "$work/app/governance.db" "$1"; }
make="CREATE TABLE maintainers (id integer PRIMARY KEY, name text); CREATE TABLE votes (by integer)"

start_postgres() {
	chmod 0711 "$work"
	home=$work/postgres
	if ! "${as[@]}" test -x "$work" || ! "${as[@]}" "$holdfast" version >/dev/null 2>&1; then
		# The server's user can't come here: it gets a place of its own, and what it runs goes there.
		home=$(mktemp -d /tmp/holdfast-demo-postgres.XXXXXX)
		cp "$holdfast" "$home/holdfast"
		holdfast=$home/holdfast
	fi
	mkdir -p "$home"
	if ((EUID == 0)); then chown -R "$user" "$home"; fi
	(
		cd "$home"
		"${as[@]}" "$postgres/initdb" -D "$home/data" -U postgres -A trust --locale=C.UTF-8 >/dev/null
		printf "listen_addresses = ''\nunix_socket_directories = '%s'\n" "$home" |
			"${as[@]}" tee -a "$home/data/postgresql.conf" >/dev/null
		"${as[@]}" "$postgres/pg_ctl" -D "$home/data" -l "$home/log" -w start >/dev/null
	)
	printf '[governance]\nhost=%s\nuser=postgres\ndbname=governance\n' "$home" >"$HOME/.pg_service.conf"
	"$postgres/psql" -qX -d "service=governance dbname=postgres" -c 'CREATE DATABASE governance'
	ask_postgres "$make; INSERT INTO maintainers SELECT i, 'maintainer ' || i FROM generate_series(1, 1000) i"
	application postgres "$postgres/psql -qX -d service=governance" 'INSERT INTO votes (by) VALUES (1)'
	"$work/app-postgres" start
	cat >>"$work/policy.yaml" <<-END
		      governance-db:
		        postgres: {service: governance, mode: physical}
		        schedule: {continuous: 200ms}
		        checks: [{query: SELECT count(*) FROM maintainers, expect: "> 0"}]
		        hooks:
		          stop:
		            - {command: ["$work/app-postgres", stop]}
		            - {command: [${as[*]:+$(printf '"%s", ' "${as[@]}")}"$postgres/pg_ctl", -D, "$home/data", -s, -w, stop]}
		          start:
		            - {command: [${as[*]:+$(printf '"%s", ' "${as[@]}")}"$postgres/pg_ctl", -D, "$home/data", -l, "$home/log", -s, -w, start]}
		            - {command: ["$work/app-postgres", start]}
		          health: [{command: ["$postgres/psql", -qXAt, -o, /dev/null, -d, service=governance, -c, SELECT 1], timeout: 2m}]
	END
}

start_sqlite() {
	mkdir "$work/app"
	ask_sqlite "PRAGMA journal_mode = WAL; $make; WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 1000)
		INSERT INTO maintainers SELECT i, 'maintainer ' || i FROM c" >/dev/null
	application sqlite "$sqlite -cmd \".timeout 60000\" $work/app/governance.db" 'INSERT INTO votes (by) VALUES (1)'
	"$work/app-sqlite" start
	cat >>"$work/policy.yaml" <<-END
		      governance-sqlite:
		        sqlite: {path: "$work/app/governance.db"}
		        schedule: {continuous: 200ms}
		        checks: [{query: SELECT count(*) FROM maintainers, expect: "> 0"}]
		        hooks:
		          stop: [{command: ["$work/app-sqlite", stop]}]
		          start: [{command: ["$work/app-sqlite", start]}]
	END
}

# counts KIND: maintainers and votes.
counts() { "ask_$1" "SELECT (SELECT count(*) FROM maintainers) || ' maintainers, ' || (SELECT count(*) FROM votes) || ' votes'"; }

# until_true WHAT COMMAND…: waits until the command succeeds.
until_true() {
	local what=$1 n=0
	shift
	until "$@" >/dev/null 2>&1; do
		((++n < 1200)) || { cat "$work/follower.log" >&2; fail "$what: not after two minutes"; }
		sleep 0.1
	done
}

source_of() {
	case $1 in
	postgres) echo governance-db ;;
	sqlite) echo governance-sqlite ;;
	esac
}

# logged SOURCE: whether the repository knows of commits after the moment.
logged() {
	local last
	last=$("$holdfast" snapshots "$1" --points --json | grep -o '"to": *"[^"]*"' | tail -n 1 | cut -d '"' -f 4)
	# By their numbers: as texts, a whole second would come after all of its parts.
	[[ -n $last ]] && (($(date -d "$last" +%s%N) > $(date -d "$moment" +%s%N)))
}

# back KIND SOURCE: restores a source in place to the moment, and says how long that took and what is there.
back() {
	local start=$EPOCHREALTIME before
	before=$(cat "$work/votes-$1")
	run restore "$2" --at "$moment" --in-place || fail "restore $2"
	local took
	took=$(seconds "$start")
	printf '  Back in %s: %s.\n' "$took" "$(counts "$1")"
	[[ $("ask_$1" 'SELECT count(*) FROM maintainers') == 1000 ]] || fail "$2 does not have all maintainers"
	(($("ask_$1" 'SELECT count(*) FROM votes') >= before)) || fail "$2 has lost votes that were there at $moment"
}

kinds=()
[[ -z $postgres ]] || kinds+=(postgres)
[[ -z $sqlite ]] || kinds+=(sqlite)
if ((${#kinds[@]} > 0)); then
	printf 'version: 1\nhosts:\n  demo:\n    sources:\n' >"$work/policy.yaml"
	for kind in "${kinds[@]}"; do "start_$kind"; done
	export HOLDFAST_POLICY=$work/policy.yaml
	names=$(printf ', %s' "${kinds[@]}")
	names=${names/postgres/PostgreSQL $postgres_version}
	names=${names/sqlite/SQLite}
	say "12. Databases: ${names#, }, with applications that write all the time. What they commit is in the
    repository 0.2 s later: holdfast replicate follows them, as the agent does."
	printf '  $ holdfast replicate &\n'
	"$holdfast" replicate >"$work/follower.log" 2>&1 &
	follower=$!
	sources=()
	for kind in "${kinds[@]}"; do
		sources+=("$(source_of "$kind")")
		until_true "the first snapshot of $kind" "$holdfast" ls "$(source_of "$kind")"
	done
	sleep 2
	for kind in "${kinds[@]}"; do printf '    %s: %s\n' "$kind" "$(counts "$kind")"; done

	say "13. Somebody deletes all maintainers, by mistake, and the applications go on."
	for kind in "${kinds[@]}"; do "ask_$kind" 'SELECT count(*) FROM votes' >"$work/votes-$kind"; done
	# What is counted here is in the repository when the log has something later.
	moment=$(date -u +%FT%T.%3NZ)
	for source in "${sources[@]}"; do until_true "the log of $source behind $moment" logged "$source"; done
	moment=$(date -u +%FT%T.%3NZ)
	sleep 1
	for kind in "${kinds[@]}"; do
		printf '  %s: DELETE FROM maintainers\n' "$kind"
		"ask_$kind" 'DELETE FROM maintainers'
	done
	for kind in "${kinds[@]}"; do
		until_true "the log of $kind behind $moment" logged "$(source_of "$kind")"
		printf '    %s: %s\n' "$kind" "$(counts "$kind")"
	done
	run snapshots --points "${sources[@]}"

	say "14. Back to the second before: $moment. The new database is made beside the old one and must answer the policy's
    query; only then the application is stopped, for as long as it takes to exchange the two."
	for kind in "${kinds[@]}"; do back "$kind" "$(source_of "$kind")"; done

	kill "$follower"
	wait "$follower" || true
	follower=
fi
