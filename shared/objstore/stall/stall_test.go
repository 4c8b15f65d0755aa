package stall_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore/stall"
)

// pair returns a watched connection and its other side.
func pair(t *testing.T) (watched, other net.Conn) {
	t.Helper()
	a, b := net.Pipe()
	c, err := stall.Dialer(func(context.Context, string, string) (net.Conn, error) { return a, nil }, 0)(t.Context(), "tcp", "x:1")
	if err != nil {
		t.Fatal(err)
	}
	return c, b
}

func wantSilence(t *testing.T, began time.Time, err error) {
	t.Helper()
	var silent *stall.Error
	var network net.Error
	if !errors.As(err, &silent) || !errors.As(err, &network) || !network.Timeout() || time.Since(began) != stall.Silence {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
}

func TestSilence(t *testing.T) {
	for name, use := range map[string]func(net.Conn) (int, error){
		"read":  func(c net.Conn) (int, error) { return c.Read(make([]byte, 1)) },
		"write": func(c net.Conn) (int, error) { return c.Write(make([]byte, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := pair(t)
				began := time.Now()
				_, err := use(c)
				wantSilence(t, began, err)
			})
		})
	}
}

// However slow it is, what moves goes on; and who sends may listen meanwhile.
func TestSlowIsNotSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, other := pair(t)
		go func() {
			buf := make([]byte, 1)
			for range 10 {
				time.Sleep(stall.Silence - time.Second)
				if _, err := other.Read(buf); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(stall.Silence - time.Second)
			for range 10 {
				if _, err := other.Write(buf); err != nil {
					t.Error(err)
				}
				time.Sleep(stall.Silence - time.Second)
			}
			_ = other.Close()
		}()
		got := make(chan error)
		go func() {
			b, err := io.ReadAll(c)
			if len(b) != 10 {
				err = errors.Join(err, errors.New("bytes are missing"))
			}
			got <- err
		}()
		for range 10 {
			if _, err := c.Write(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-got; err != nil {
			t.Error(err)
		}
	})
}

// A pause of the reader is not the other side's silence.
func TestPauseOfTheReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, other := pair(t)
		go func() {
			_, _ = other.Write([]byte("ab"))
		}()
		buf := make([]byte, 1)
		for range 2 {
			if _, err := c.Read(buf); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * stall.Silence)
		}
	})
}

func TestDialFails(t *testing.T) {
	fails := errors.New("fails")
	dial := stall.Dialer(func(context.Context, string, string) (net.Conn, error) { return nil, fails }, 0)
	if _, err := dial(t.Context(), "tcp", "x:1"); !errors.Is(err, fails) {
		t.Error(err)
	}
}
