package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	schemaFile = "../../../proto/weir/config/v1/config.proto"
	pageFile   = "../../../docs/reference/config.md"
)

func TestPageIsUpToDate(t *testing.T) {
	schema, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	want, err := page(string(schema))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("run go generate ./internal/config/... (-want +got)\n%s", diff)
	}
}

func TestEveryFieldNeedsWords(t *testing.T) {
	schema, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	without := strings.Replace(string(schema), "  // The real model's name, as the backend knows it.\n", "", 1)
	if _, err := page(without); err == nil || err.Error() != "field Pool.model has no comment" {
		t.Errorf("got %v", err)
	}
}

const adaptersFile = "../../../docs/reference/adapters.md"

func TestAdaptersAreUpToDate(t *testing.T) {
	got, err := os.ReadFile(adaptersFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(adapters()), string(got)); diff != "" {
		t.Errorf("run go generate ./internal/config/... (-want +got)\n%s", diff)
	}
}
