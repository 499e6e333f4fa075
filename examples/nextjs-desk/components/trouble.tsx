import styles from "./trouble.module.css";

/** The whole page when there is nothing to show: what it means and what to do. */
export function Trouble({ reason }: { readonly reason: string }) {
  return (
    <main className={styles.page}>
      <h1>The dialler does not answer</h1>
      <p>
        Nothing you recorded is lost, and the person you hold stays yours for two minutes. Try again in
        a moment; if it goes on, tell your supervisor this word: <code>{reason}</code>.
      </p>
      <a className="button primary" href="/desk">
        Try again
      </a>
    </main>
  );
}
