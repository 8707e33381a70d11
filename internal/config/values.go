package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/ranvier-mesh/ranvier/routing"
)

// The functions of this file turn the value of a key into a type. A scalar is
// read from its text, quoted or not, so that '0660' and "true" are as good as
// 0660 and true.

// lineError says that an error is about another line than that of its key.
type lineError struct {
	line int
	err  error
}

func (e *lineError) Error() string { return e.err.Error() }
func (e *lineError) Unwrap() error { return e.err }

func asString(n *yaml.Node) (string, error) {
	if n.Kind != yaml.ScalarNode {
		return "", errors.New("one value is expected, not a list or a map")
	}
	if strings.IndexByte(n.Value, 0) >= 0 {
		return "", errors.New("a zero byte is not allowed")
	}
	return n.Value, nil
}

// asText is a string that is not empty.
func asText(n *yaml.Node) (string, error) {
	s, err := asString(n)
	if err == nil && s == "" {
		return "", errors.New("it is empty")
	}
	return s, err
}

// asName is the name of a service or of a work type: one word, as it is
// typed in the plain-text form of the control protocol.
func asName(n *yaml.Node) (string, error) {
	s, err := asText(n)
	if err != nil {
		return "", err
	}
	if len(s) > routing.MaxNameLen || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || unicode.IsSpace(r) }) {
		return "", fmt.Errorf("%.100q is no name: at most %d bytes without spaces are allowed", s, routing.MaxNameLen)
	}
	return s, nil
}

func asBool(n *yaml.Node) (bool, error) {
	s, err := asString(n)
	if err != nil {
		return false, err
	}
	switch strings.ToLower(s) {
	case "true", "yes", "on", "y", "t", "1":
		return true, nil
	case "false", "no", "off", "n", "f", "0":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", s)
}

func asPort(n *yaml.Node) (uint16, error) {
	s, err := asString(n)
	if err != nil {
		return 0, err
	}
	p, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is no port: 0 to 65535 is allowed", s)
	}
	return uint16(p), nil
}

func asCost(n *yaml.Node) (routing.Cost, error) {
	s, err := asString(n)
	if err != nil {
		return 0, err
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return routing.NewCost(f)
}

func asNodeID(n *yaml.Node) (routing.NodeID, error) {
	s, err := asString(n)
	if err != nil {
		return "", err
	}
	return routing.NodeID(s), routing.NodeID(s).Validate()
}

// asOwnID refuses in addition the name that means "this node" to every node.
func asOwnID(n *yaml.Node) (routing.NodeID, error) {
	id, err := asNodeID(n)
	if err == nil && strings.EqualFold(string(id), "localhost") {
		return "", errLocalhost
	}
	return id, err
}

var errLocalhost = errors.New("a node cannot be called localhost: that is every node's name for itself")

// asNodeIDs is a list of ids; one id needs no list.
func asNodeIDs(n *yaml.Node) ([]routing.NodeID, error) {
	nodes := []*yaml.Node{n}
	switch n.Kind {
	case yaml.SequenceNode:
		nodes = n.Content
	case yaml.MappingNode:
		return nil, errors.New("a list of node ids is expected, not a map")
	}
	var ids []routing.NodeID
	for _, n := range nodes {
		id, err := asNodeID(deref(n))
		if err != nil {
			return nil, &lineError{n.Line, err}
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func asNodeCosts(n *yaml.Node) (map[routing.NodeID]routing.Cost, error) {
	if n.Kind != yaml.MappingNode {
		return nil, errors.New("a map of node ids to costs is expected")
	}
	costs := map[routing.NodeID]routing.Cost{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		id, err := asNodeID(deref(n.Content[i]))
		if err != nil {
			return nil, &lineError{n.Content[i].Line, err}
		}
		if _, dup := costs[id]; dup {
			return nil, &lineError{n.Content[i].Line, fmt.Errorf("node %s stands twice", id)}
		}
		if costs[id], err = asCost(deref(n.Content[i+1])); err != nil {
			return nil, &lineError{n.Content[i].Line, fmt.Errorf("node %s: %w", id, err)}
		}
	}
	return costs, nil
}

func asMode(n *yaml.Node) (fs.FileMode, error) {
	s, err := asString(n)
	if err != nil {
		return 0, err
	}
	m, err := strconv.ParseUint(s, 0, 32) // base 0 reads 0660 and 0o660 as octal
	if err != nil {
		return 0, fmt.Errorf("%q is no file mode: write it as 0660", s)
	}
	if m > 0o777 {
		return 0, fmt.Errorf("%s is no file mode: write it with a leading zero, from 0000 to 0777", s)
	}
	return fs.FileMode(m), nil
}

func asDuration(n *yaml.Node) (time.Duration, error) {
	s, err := asString(n)
	if err != nil {
		return 0, err
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf(`%q is no duration: write it as "90s" or "1h30m"`, s)
	}
	return d, nil
}

func asLevel(n *yaml.Node) (slog.Level, error) {
	s, err := asString(n)
	if err != nil {
		return 0, err
	}
	switch strings.ToLower(s) {
	case "error":
		return slog.LevelError, nil
	case "warning", "warn":
		return slog.LevelWarn, nil
	case "info":
		return slog.LevelInfo, nil
	case "debug":
		return slog.LevelDebug, nil
	}
	return 0, fmt.Errorf("%q is no log level: error, warning, info or debug is allowed", s)
}

// asListen is host:port or a port alone, on all addresses, to listen on.
func asListen(n *yaml.Node) (string, error) {
	s, err := asText(n)
	if err != nil {
		return "", err
	}
	if _, err := strconv.ParseUint(s, 10, 16); err == nil {
		return net.JoinHostPort("0.0.0.0", s), nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%q is no port and no host:port", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("%q has no port from 0 to 65535", s)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	return net.JoinHostPort(host, port), nil
}

// asHost is an IP address or a host name without a port.
func asHost(n *yaml.Node) (string, error) {
	s, err := asText(n)
	if err != nil {
		return "", err
	}
	if host, port, err := net.SplitHostPort(s); err == nil {
		return "", fmt.Errorf("%q must be an address without a port: write %s here and %s as the port", s, host, port)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) || strings.ContainsRune("[]/", r) }) {
		return "", fmt.Errorf("%q is no address", s)
	}
	return s, nil
}

// asResumeTime is a duration; none at all is -1, as 0 is a default.
func asResumeTime(n *yaml.Node) (time.Duration, error) {
	d, err := asDuration(n)
	if err == nil && d == 0 {
		d = -1
	}
	return d, err
}

// minStreamMemory is what a few streams need to be any fast.
const minStreamMemory = 1 << 20

func asStreamMemory(n *yaml.Node) (int64, error) {
	size, err := asSize(n)
	if err == nil && size < minStreamMemory {
		err = fmt.Errorf("%s is too little for streams: at least 1MiB is needed", n.Value)
	}
	return size, err
}
