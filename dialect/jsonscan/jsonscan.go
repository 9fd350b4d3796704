// Package jsonscan reads one JSON object strictly, in one pass, without building
// anything.
package jsonscan
