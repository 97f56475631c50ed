//! The HTTP door as a client sees it, with a broker that says what the test wants it to say.

mod double;
mod submitting;
mod looking;
mod working;
mod entering;
