//! Counts tokens with bpe-openai, for the program in the folder above. Its
//! worker.go has the protocol, and measures as this does.

use std::env;
use std::error::Error;
use std::hint::black_box;
use std::io::{self, BufRead, Read};

use bpe_openai::{cl100k_base, o200k_base, Tokenizer};
use rustix::time::{clock_gettime, ClockId};

fn main() -> Result<(), Box<dyn Error>> {
    let tokenizer = match env::args().nth(1).as_deref() {
        Some("o200k") => o200k_base(),
        Some("cl100k") => cl100k_base(),
        other => return Err(format!("no such vocabulary: {other:?}").into()),
    };
    tokenizer.count("loaded");
    println!("ready");
    let mut input = io::stdin().lock();
    let mut line = String::new();
    while input.read_line(&mut line)? > 0 {
        let (window, size) = line
            .trim_end()
            .split_once(' ')
            .ok_or("a command without size")?;
        let (window, size) = (window.parse()?, size.parse()?);
        line.clear();
        let mut text = vec![0; size];
        input.read_exact(&mut text)?;
        measure(tokenizer, &String::from_utf8(text)?, window)?;
    }
    Ok(())
}

/// Counts `text` once, and then again and again for `window` nanoseconds of CPU time.
fn measure(tokenizer: &Tokenizer, text: &str, window: u64) -> Result<(), Box<dyn Error>> {
    let begin = cpu_nanos();
    let count = tokenizer.count(text);
    println!("pass {count} {}", cpu_nanos() - begin);
    let (mut passes, mut spent, mut batch) = (0, 0, 1);
    let begin = cpu_nanos();
    while spent < window {
        for _ in 0..batch {
            let again = black_box(tokenizer).count(black_box(text));
            if again != count {
                return Err(format!("{again} tokens, and {count} before").into());
            }
        }
        passes += batch;
        spent = cpu_nanos() - begin;
        batch = next_batch(passes, spent, window);
    }
    println!("done {passes} {spent}");
    Ok(())
}

/// How many passes to make before the clock is read again: all that are left, but
/// no more than were made.
fn next_batch(passes: u64, spent: u64, window: u64) -> u64 {
    let left = window.saturating_sub(spent) as f64 * passes as f64 / spent.max(1) as f64;
    (left as u64).clamp(1, passes)
}

/// The CPU time of this process.
fn cpu_nanos() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
