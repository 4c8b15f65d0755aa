package cost_test

import (
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/test/cost"
)

// TestSeen: what is said to have been seen is a price of the table, and says where.
func TestSeen(t *testing.T) {
	prices := cost.Prices()
	for key, s := range cost.SeenAt() {
		if _, ok := prices[key]; !ok || !strings.HasPrefix(s.At, "https://") {
			t.Errorf("%d: %+v", key, s)
		}
	}
}
