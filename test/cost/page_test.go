package cost_test

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/test/cost"
)

var update = flag.Bool("update", false, "write docs/cost.md")

const page = "../../docs/cost.md"

// TestPage compares the page with what the model says today.
func TestPage(t *testing.T) {
	want := render(t)
	if *update {
		if err := os.WriteFile(page, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("docs/cost.md is not what the model says; go test ./test/cost -update writes it:\n%s", diff)
	}
}

// money prints dollars so that cents count where there are few.
func money(v float64) string {
	if v >= 1000 {
		text := fmt.Sprintf("%.0f", v)
		for i := len(text) - 3; i > 0; i -= 3 {
			text = text[:i] + "," + text[i:]
		}
		return text
	}
	return fmt.Sprintf("%.2f", v)
}

func sizes() []int { return []int{1, 100, 10_000} }

func render(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	p("# What it costs\n")
	p("This page is written by a program, [test/cost](../test/cost): `go test ./test/cost -update`. It knows the functions' memory and")
	p("schedules, the metrics, the alarms and the projection of the policy from the code, and AWS's list prices (us-east-1, US dollars")
	p("a month, without free tiers) from the table below. **No bill of a real account stands behind it yet,")
	p("and no price could be read from AWS's own pages, whose numbers a program fills in. %d of the %d were seen elsewhere as they stand", len(cost.SeenAt()), len(cost.Prices()))
	p("here, as the last column of the table says; the others are from memory. Look at AWS's pages before you decide by it.**\n")
	p("A typical host has 20 GiB of application data, saved every hour, and 200 MiB of configuration, saved every four hours, both for")
	p("7 days in full, 30 daily and 12 weekly, compressed to half, with 1 %% changed a day; a replica in a second region.\n")
	table(t, p, "Holdfast", func(n int) cost.Bill {
		b, err := cost.Holdfast(n)
		if err != nil {
			t.Fatal(err)
		}
		return b
	})
	p("Most of what one host costs are metrics, alarms and keys, which do not grow with the hosts; most of what many cost is storage.")
	p("Each source with `metrics: true` adds %s a month (3 metrics and an alarm; at most %d sources).\n",
		money(3*cost.Prices()[cost.Metric].Dollar+cost.Prices()[cost.Alarm].Dollar), environment.MostOwnMetrics)
	table(t, p, "AWS Backup of the hosts' volumes, daily, kept for 30 days, copied to a second region", cost.Backup)
	p("It restores a volume or an instance, of at most a day ago, on AWS only; databases are as consistent as after a power cut. It")
	p("needs no agent. Blocks are billed uncompressed; 2 %% of them are taken to change in a day.\n")
	table(t, p, "EC2 with pgBackRest and restic, one server for 500 hosts", func(n int) cost.Bill {
		b, err := cost.Server(n)
		if err != nil {
			t.Fatal(err)
		}
		return b
	})
	p("The same amount of data is assumed. Whoever owns that server can destroy all backups on it; who keeps it running is not counted.\n")
	p("## Side by side\n")
	p("| hosts | Holdfast | AWS Backup | EC2 |\n| ---: | ---: | ---: | ---: |")
	for _, n := range sizes() {
		h, err := cost.Holdfast(n)
		if err != nil {
			t.Fatal(err)
		}
		s, err := cost.Server(n)
		if err != nil {
			t.Fatal(err)
		}
		p("| %s | %s | %s | %s |", strings.TrimSuffix(money(float64(n)), ".00"), money(h.Total()), money(cost.Backup(n).Total()), money(s.Total()))
	}
	p("\n## Reading everything again\n")
	p("The function verify reads all bytes again, those of the repository once in 30 days and those of the replica once in 90, unless")
	p("[limits.reread](policy.md#reread) of the policy says something else. To read 1,000 GB once costs %s dollars in the first region (S3 Standard:", money(cost.Reread(false)))
	p("requests and Lambda) and %s in the replica's (Standard-IA charges for each GB). `bytes: 1TB` there means that no more than that is paid for in", money(cost.Reread(true)))
	p("30 days; what does not fit takes longer than the period, and that is an alert.")
	p("\n## Prices\n")
	p("| | $ | for each | published at | seen at |\n| --- | ---: | --- | --- | --- |")
	prices, seen := cost.Prices(), cost.SeenAt()
	for key := range len(prices) {
		at := "**not seen: from memory**"
		if s, ok := seen[key]; ok {
			if at = s.At; s.When != "" {
				at += " (" + s.When + ")"
			}
		}
		p("| %s | %s | %s | %s | %s |", prices[key].What, strconv.FormatFloat(prices[key].Dollar, 'f', -1, 64), prices[key].Per, prices[key].Source, at)
	}
	p("\nA key of KMS that rotates, as those do that are deployed, costs a dollar more a month after each of its first two rotations")
	p("(a year apart). What archived packs cost to thaw is in the plan of a restore ([recovery](../shared/recovery/thaw.go)); those prices")
	p("were seen at https://repost.aws/knowledge-center/s3-manage-data-retrieval (Flexible Retrieval, standard) and https://www.usage.ai/blogs/aws/storage-cost/glacier-deep-archive-pricing/ (2026-06),")
	p("but for the requests of Deep Archive, which are from memory.")
	p("\n## What is assumed\n")
	for _, a := range cost.Assumptions() {
		p("- %s", a)
	}
	return out.Bytes()
}

func table(t *testing.T, p func(string, ...any), title string, of func(int) cost.Bill) {
	t.Helper()
	p("## %s\n", title)
	p("| dollars a month, hosts: | 1 | 100 | 10,000 |\n| --- | ---: | ---: | ---: |")
	bills := make([]cost.Bill, 0, len(sizes()))
	for _, n := range sizes() {
		bills = append(bills, of(n))
	}
	for i, l := range bills[0].Lines {
		p("| %s | %s | %s | %s |", l.What, money(l.Dollar), money(bills[1].Lines[i].Dollar), money(bills[2].Lines[i].Dollar))
	}
	p("| **all** | **%s** | **%s** | **%s** |\n", money(bills[0].Total()), money(bills[1].Total()), money(bills[2].Total()))
}

// TestModel checks that the model behaves: more hosts cost more, each of them less.
func TestModel(t *testing.T) {
	last, lastEach := 0.0, math.Inf(1)
	for _, n := range sizes() {
		b, err := cost.Holdfast(n)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range b.Lines {
			if l.Dollar <= 0 || math.IsNaN(l.Dollar) {
				t.Errorf("%d hosts: %s costs %v", n, l.What, l.Dollar)
			}
		}
		if each := b.Total() / float64(n); b.Total() <= last || each >= lastEach {
			t.Errorf("%d hosts: %v, each %v; fewer cost %v, each %v", n, b.Total(), each, last, lastEach)
		}
		last, lastEach = b.Total(), b.Total()/float64(n)
	}
}
